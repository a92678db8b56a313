const floats = new Float32Array(1)
const bits = new Uint32Array(floats.buffer)

/** IEEE 754 half-precision bits of a number, rounded to nearest even as numpy does; DataView.setFloat16 is too new. */
export function halfFloatBits(value: number): number {
  floats[0] = value
  const f = bits[0]
  const sign = (f >>> 16) & 0x8000
  const magnitude = f & 0x7fffffff
  if (magnitude > 0x7f800000) return sign | 0x7e00 // NaN
  if (magnitude >= 0x477ff000) return sign | 0x7c00 // 65520 and beyond round to infinity
  if (magnitude < 0x38800000) {
    // subnormal: counted in units of 2^-24, where adding and taking away 2^23 rounds to nearest even
    floats[0] = Math.abs(Math.fround(value)) * 2 ** 24 + 2 ** 23
    return sign | (floats[0] - 2 ** 23)
  }
  const rest = magnitude & 0x1fff
  const half = (magnitude - 0x38000000) >>> 13
  return sign | (half + (rest > 0x1000 || (rest === 0x1000 && (half & 1) === 1) ? 1 : 0))
}
