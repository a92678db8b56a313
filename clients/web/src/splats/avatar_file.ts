/** An avatar as the server gives it to browsers: streaming/browser_avatar.py, docs/client_rendering.md. */
import { JOINTS } from './pose_packet'

const HEAD_BYTES = 48
const MAGIC = 0x41424c4c // "LLBA"
const VERSION = 1
const INFLUENCES = 8
const MOST_GAUSSIANS = 1_000_000
/** Less of an expression than this is not seen. */
const LEAST = 1e-3

/** Columns hold a value of every Gaussian, one after the other. */
export interface AvatarFile {
  gaussians: number
  /** So many of them, the first, are moved by expressions. */
  moved: number
  expressions: number
  /** Metres: of the centres' corner, and of one step. */
  low: Float32Array
  step: Float32Array
  /** Natural logarithms of lengths in metres. */
  scaleLow: number
  scaleStep: number
  rest: Float32Array
  /** Metres of one step of each expression. */
  moveSteps: Float32Array
  /** 2 bits say which of w, x, y, z is left out, 10 each are the others. */
  quaternions: Uint32Array
  /** 3 columns. */
  means: Uint16Array
  /** 3 columns. */
  scales: Uint8Array
  /** 4 columns, straight. */
  rgba: Uint8Array
  /** 8 columns, heaviest first. */
  joints: Uint8Array
  /** 8 columns that sum to 255. */
  weights: Uint8Array
  /** 1 for those that do not turn. */
  constrained: Uint8Array
  /** For each expression 3 columns of the moved. */
  moves: Int8Array
  parents: Uint8Array
}

/** Throws an Error that says what is wrong with the file. */
export function parseAvatar(data: ArrayBuffer): AvatarFile {
  if (data.byteLength < HEAD_BYTES) throw new Error(`an avatar of ${data.byteLength} bytes is cut off`)
  const view = new DataView(data)
  if (view.getUint32(0, true) !== MAGIC) throw new Error('this is no avatar for browsers')
  const version = view.getUint16(4, true)
  if (version !== VERSION) throw new Error(`avatars of version ${version} are unknown to this page: reload it`)
  const expressions = view.getUint16(6, true)
  const gaussians = view.getUint32(8, true)
  const moved = view.getUint32(12, true)
  if (moved > gaussians || gaussians > MOST_GAUSSIANS) throw new Error(`${moved} of ${gaussians} Gaussians move`)
  let at = HEAD_BYTES
  const take = (bytes: number) => {
    at += bytes
    if (at > data.byteLength) throw new Error(`an avatar of ${data.byteLength} bytes is cut off`)
    return at - bytes
  }
  const file: AvatarFile = {
    gaussians,
    moved,
    expressions,
    low: new Float32Array(data, 16, 3),
    step: new Float32Array(data, 28, 3),
    scaleLow: view.getFloat32(40, true),
    scaleStep: view.getFloat32(44, true),
    rest: new Float32Array(data, take(12 * JOINTS), 3 * JOINTS),
    moveSteps: new Float32Array(data, take(4 * expressions), expressions),
    quaternions: new Uint32Array(data, take(4 * gaussians), gaussians),
    means: new Uint16Array(data, take(6 * gaussians), 3 * gaussians),
    scales: new Uint8Array(data, take(3 * gaussians), 3 * gaussians),
    rgba: new Uint8Array(data, take(4 * gaussians), 4 * gaussians),
    joints: new Uint8Array(data, take(INFLUENCES * gaussians), INFLUENCES * gaussians),
    weights: new Uint8Array(data, take(INFLUENCES * gaussians), INFLUENCES * gaussians),
    constrained: new Uint8Array(data, take(gaussians), gaussians),
    moves: new Int8Array(data, take(3 * expressions * moved), 3 * expressions * moved),
    parents: new Uint8Array(data, take(JOINTS), JOINTS),
  }
  if (at !== data.byteLength) throw new Error(`an avatar of ${data.byteLength} bytes, where ${at} are expected`)
  return file
}

/** Texels a Gaussian takes in what `packTexels` makes. */
export const TEXELS = 3

/** All of a Gaussian's own as a shader reads it: TEXELS times four words each. puppet.ts unpacks them. */
export function packTexels(file: AvatarFile, room: number): Uint32Array<ArrayBuffer> {
  const { gaussians: n, means, scales, rgba, joints, weights } = file
  const texels = new Uint32Array(4 * TEXELS * room)
  const bytes = new Uint8Array(texels.buffer)
  for (let i = 0; i < n; i++) {
    const word = 4 * TEXELS * i
    texels[word] = means[i] | (means[n + i] << 16)
    texels[word + 1] = means[2 * n + i] | (scales[i] << 16) | (scales[n + i] << 24)
    texels[word + 2] = scales[2 * n + i] | (file.constrained[i] << 8)
    texels[word + 3] = file.quaternions[i]
    for (let k = 0; k < 4; k++) bytes[4 * (word + 4) + k] = rgba[k * n + i]
    for (let k = 0; k < INFLUENCES; k++) {
      bytes[4 * (word + 5) + k] = joints[k * n + i]
      bytes[4 * (word + 8) + k] = weights[k * n + i]
    }
  }
  return texels
}

/** What one expression moves: which Gaussians, and how far, metres, three numbers each. */
interface Move {
  rows: Uint32Array
  metres: Float32Array
}

/** Most expressions leave most of a face where it is; so only what moves is kept of each. */
export function listMoves({ expressions, moved, moves, moveSteps }: AvatarFile): Move[] {
  return Array.from({ length: expressions }, (_, e) => {
    const columns = [0, 1, 2].map((axis) => moves.subarray((3 * e + axis) * moved, (3 * e + axis + 1) * moved))
    const rows = Uint32Array.from({ length: moved }, (_, i) => i).filter((i) =>
      columns.some((column) => column[i] !== 0),
    )
    const metres = new Float32Array(3 * rows.length)
    rows.forEach((i, at) => columns.forEach((column, axis) => (metres[3 * at + axis] = moveSteps[e] * column[i])))
    return { rows, metres }
  })
}

/** Where a face moves each of the moved, metres: four numbers each, of which the last is not used. */
export function moveFaces(moves: readonly Move[], expression: Float32Array, out: Float32Array): void {
  out.fill(0)
  for (let e = 0; e < Math.min(expression.length, moves.length); e++) {
    const amount = expression[e]
    if (Math.abs(amount) < LEAST) continue
    const { rows, metres } = moves[e]
    for (let i = 0; i < rows.length; i++) {
      const to = 4 * rows[i]
      out[to] += amount * metres[3 * i]
      out[to + 1] += amount * metres[3 * i + 1]
      out[to + 2] += amount * metres[3 * i + 2]
    }
  }
}
