/** From a pose to joint matrices: lhm_runtime/body/kinematics.py in the browser. */
import { JOINTS, type Pose } from './pose_packet'

const NO_PARENT = 255

export class Skeleton {
  #parents: Uint8Array
  #rest: Float32Array
  #world = new Float32Array(12 * JOINTS)

  /** @param parents 255 for the root; every joint comes after its parent */
  /** @param rest where each joint is at zero pose, metres */
  constructor(parents: Uint8Array, rest: Float32Array) {
    this.#parents = parents
    this.#rest = rest
  }

  /** Matrices [55, 3, 4], row by row, that carry points of the zero pose, rigid to each joint, into the world. */
  matrices({ rotations, transl }: Pose, out: Float32Array): void {
    const world = this.#world
    const rest = this.#rest
    for (let joint = 0; joint < JOINTS; joint++) {
      const parent = this.#parents[joint]
      const [x, y, z, w] = rotations.subarray(4 * joint, 4 * joint + 4)
      const r = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
      ]
      const at = 12 * joint
      for (let row = 0; row < 3; row++) {
        if (parent === NO_PARENT) {
          for (let column = 0; column < 3; column++) world[at + 4 * row + column] = r[3 * row + column]
          world[at + 4 * row + 3] = rest[3 * joint + row] + transl[row]
          continue
        }
        const up = 12 * parent + 4 * row
        let place = world[up + 3]
        for (let k = 0; k < 3; k++) place += world[up + k] * (rest[3 * joint + k] - rest[3 * parent + k])
        for (let column = 0; column < 3; column++) {
          world[at + 4 * row + column] =
            world[up] * r[column] + world[up + 1] * r[3 + column] + world[up + 2] * r[6 + column]
        }
        world[at + 4 * row + 3] = place
      }
      for (let row = 0; row < 3; row++) {
        const from = at + 4 * row
        let shift = world[from + 3]
        for (let k = 0; k < 3; k++) {
          out[from + k] = world[from + k]
          shift -= world[from + k] * rest[3 * joint + k]
        }
        out[from + 3] = shift
      }
    }
  }
}
