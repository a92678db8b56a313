/** Unit quaternions, x y z w, in flat arrays. */

const LARGEST = Math.SQRT1_2

/**
 * A quaternion of which the largest component was left out.
 * @param leftOut which of w, x, y, z
 * @param a the others in order, 0 to `most`; so are b and c
 */
export function unpackQuaternion(
  leftOut: number,
  a: number,
  b: number,
  c: number,
  most: number,
  out: Float32Array,
  at: number,
): void {
  const scale = (2 * LARGEST) / most
  const first = a * scale - LARGEST
  const second = b * scale - LARGEST
  const third = c * scale - LARGEST
  const largest = Math.sqrt(Math.max(0, 1 - first * first - second * second - third * third))
  const w = leftOut === 0 ? largest : first
  const x = leftOut === 1 ? largest : leftOut === 0 ? first : second
  const y = leftOut === 2 ? largest : leftOut === 3 ? third : second
  const z = leftOut === 3 ? largest : third
  out[at] = x
  out[at + 1] = y
  out[at + 2] = z
  out[at + 3] = w
}

/** Part of the way from each quaternion of `start` to that of `end`, along the shorter arc, renormalised. */
export function mixQuaternions(start: Float32Array, end: Float32Array, share: number, out: Float32Array): void {
  for (let i = 0; i < out.length; i += 4) {
    let dot = 0
    for (let k = i; k < i + 4; k++) dot += start[k] * end[k]
    const to = dot < 0 ? -share : share
    let length = 0
    for (let k = i; k < i + 4; k++) {
      out[k] = (1 - share) * start[k] + to * end[k]
      length += out[k] * out[k]
    }
    const scale = 1 / Math.sqrt(length)
    for (let k = i; k < i + 4; k++) out[k] *= scale
  }
}
