import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { halfFloatBits } from '../src/wire/half_float'
import { encodeLandmarks, type LandmarkSample } from '../src/wire/landmark_sample'

// tests/streaming/golden/README.md gives the formula; the Python tests read the same files
const golden = (name: string) =>
  new Uint8Array(readFileSync(new URL(`../../../tests/streaming/golden/landmarks_${name}.bin`, import.meta.url)))

const ramp = (count: number, start: number, divisor: number, centre: number) =>
  Float32Array.from({ length: count }, (_, i) => ((((i + start) * 37) % 101) - centre) / divisor)

const header = { sequence: 4_000_000_001, capturedMs: 1_790_000_000_125, width: 640, height: 480 }
const body = { world: ramp(99, 1, 60, 50), image: ramp(66, 2, 90, 10), visibility: ramp(33, 3, 100, 0) }
const leftHand = { world: ramp(63, 4, 700, 50), image: ramp(42, 5, 110, 0) }
const rightHand = { world: ramp(63, 6, 700, 50), image: ramp(42, 7, 110, 0) }
const face = ramp(956, 8, 300, 0)
const expression = ramp(52, 9, 100, 0)
const head = ramp(16, 10, 3, 50)

const samples: Record<string, LandmarkSample> = {
  nobody: header,
  body: { ...header, body },
  webcam: { ...header, body, leftHand, expression, head },
  everything: { ...header, body, leftHand, rightHand, face, expression, head },
}

describe('a landmark sample', () => {
  it.each(Object.keys(samples))('has the recorded bytes: %s', (name) => {
    expect(new Uint8Array(encodeLandmarks(samples[name]))).toEqual(golden(name))
  })

  it('leaves out a part with a number that cannot be sent', () => {
    const broken = Float32Array.from(expression)
    broken[7] = NaN
    expect(new Uint8Array(encodeLandmarks({ ...header, body, expression: broken }))).toEqual(golden('body'))
    const far = { ...body, world: body.world.map((value) => value * 1000) }
    expect(new Uint8Array(encodeLandmarks({ ...header, body: far }))).toEqual(golden('nobody'))
  })

  it('refuses pictures that have no size, and parts of another length', () => {
    expect(() => encodeLandmarks({ ...header, width: 0 })).toThrow('picture of 0x480')
    expect(() => encodeLandmarks({ ...header, expression: new Float32Array(51) })).toThrow('51 numbers')
  })

  it('counts samples modulo 2^32', () => {
    const view = new DataView(encodeLandmarks({ ...header, sequence: 2 ** 32 + 5 }))
    expect(view.getUint32(6, true)).toBe(5)
  })
})

describe('half floats', () => {
  it.each([
    [0, 0x0000],
    [-0, 0x8000],
    [1, 0x3c00],
    [-2, 0xc000],
    [65504, 0x7bff],
    [65519.99, 0x7bff],
    [65520, 0x7c00],
    [-Infinity, 0xfc00],
    [2 ** -14, 0x0400], // smallest normal
    [2 ** -24, 0x0001], // smallest subnormal
    [2 ** -25, 0x0000], // tie to even
    [3 * 2 ** -25, 0x0002], // tie to even
    [1023.5 * 2 ** -24, 0x0400], // rounds up into the normal numbers
    [1 + 2 ** -11, 0x3c00], // tie to even
    [1 + 3 * 2 ** -11, 0x3c02], // tie to even
    [1.9999, 0x4000], // carries into the exponent
    [0.1, 0x2e66],
  ])('%s', (value, bits) => expect(halfFloatBits(value)).toBe(bits))

  it('keeps NaN', () => expect(halfFloatBits(NaN) & 0x7fff).toBeGreaterThan(0x7c00))
})
