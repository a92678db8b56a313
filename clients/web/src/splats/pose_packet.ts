/** Poses as the server packs them: streaming/pose_packet.py, docs/client_rendering.md. */
import { unpackQuaternion } from './rotations'

export const JOINTS = 55
const HEAD_BYTES = 30
const VERSION = 1
const MOST = 2 ** 15 - 1

export interface Pose {
  /** On the session's clock. */
  timeMs: number
  /** Which of the session's avatars it is for. */
  cast: number
  sequence: number
  /** Metres. */
  transl: Float32Array
  /** x y z w of each joint, relative to its parent. */
  rotations: Float32Array
  expression: Float32Array
}

/** What a packet says; null for what is none of version 1, or not of the length it says. */
export function parsePose(data: ArrayBuffer): Pose | null {
  if (data.byteLength < HEAD_BYTES) return null
  const view = new DataView(data)
  if (view.getUint8(0) !== 0x4c || view.getUint8(1) !== 0x53 || view.getUint8(2) !== VERSION) return null
  const coefficients = view.getUint16(28, true)
  if (data.byteLength !== HEAD_BYTES + 6 * JOINTS + 2 * coefficients) return null
  const rotations = new Float32Array(4 * JOINTS)
  for (let joint = 0; joint < JOINTS; joint++) {
    const at = HEAD_BYTES + 6 * joint
    const [a, b, c] = [view.getUint16(at, true), view.getUint16(at + 2, true), view.getUint16(at + 4, true)]
    unpackQuaternion((a >> 15) | ((b >> 15) << 1), a & MOST, b & MOST, c & MOST, MOST, rotations, 4 * joint)
  }
  const face = HEAD_BYTES + 6 * JOINTS
  return {
    timeMs: view.getFloat64(8, true),
    cast: view.getUint8(3),
    sequence: view.getUint32(4, true),
    transl: Float32Array.of(view.getFloat32(16, true), view.getFloat32(20, true), view.getFloat32(24, true)),
    rotations,
    expression: Float32Array.from({ length: coefficients }, (_, i) => halfFloat(view.getUint16(face + 2 * i, true))),
  }
}

/** The number that IEEE 754 half-precision bits stand for; DataView.getFloat16 is too new. */
export function halfFloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 0x1f
  const fraction = bits & 0x3ff
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}
