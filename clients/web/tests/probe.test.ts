import { describe, expect, it } from 'vitest'
import { elapsedMs, Latencies, PERIOD_MS, readTimeCode, unpackTimeCode } from '../src/live/probe'

// the same numbers stand in tests/streaming/test_time_code.py
const WITH_CAPTURE = 0xc5e857cb
const WITHOUT = 0x8fffd7cb

function corner(code: number): Uint8ClampedArray {
  const rgba = new Uint8ClampedArray(128 * 8 * 4)
  for (let y = 0; y < 8; y++) {
    for (let x = 0; x < 128; x++) {
      const on = (code >>> (x >> 2)) & 1
      rgba.set(on ? [240, 236, 250, 255] : [12, 20, 9, 255], 4 * (y * 128 + x)) // as a codec leaves them
    }
  }
  return rgba
}

describe('time code', () => {
  it('reads what the server writes', () => {
    expect(unpackTimeCode(WITH_CAPTURE)).toEqual({ drawnMs: 6091, capturedMs: 6049 })
    expect(unpackTimeCode(WITHOUT)).toEqual({ drawnMs: 6091, capturedMs: null })
    expect(readTimeCode(corner(WITH_CAPTURE))).toEqual({ drawnMs: 6091, capturedMs: 6049 })
  })

  it('notices every single wrong bit', () => {
    for (let bit = 0; bit < 32; bit++)
      expect(unpackTimeCode((WITH_CAPTURE ^ (1 << bit)) >>> 0), `bit ${bit}`).toBeNull()
  })

  it('is in no plain picture', () => {
    for (const level of [0, 40, 127, 200, 255]) {
      expect(readTimeCode(new Uint8ClampedArray(128 * 8 * 4).fill(level))).toBeNull()
    }
  })

  it('counts across the end of its period', () => {
    const now = 1_790_000_000_125
    expect(elapsedMs(now, (now - 42) % PERIOD_MS)).toBe(42)
    expect(elapsedMs(now, (now + 3) % PERIOD_MS)).toBe(-3) // their clock is ahead
    expect(elapsedMs(5, PERIOD_MS - 10)).toBe(15)
  })
})

describe('latencies', () => {
  it('gives the median of the recent ones and leaves out what cannot be', () => {
    const latencies = new Latencies()
    expect(latencies.recentMedian).toBeNull()
    for (const ms of [NaN, 20, 90, 30, 12_000]) latencies.add(ms)
    expect(latencies.recentMedian).toBe(30)
    for (let i = 0; i < 200; i++) latencies.add(25)
    expect(latencies.recentMedian).toBe(25)
  })
})
