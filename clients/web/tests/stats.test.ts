import { describe, expect, it } from 'vitest'
import { ServerClock } from '../src/live/clock'
import { compareCounters, formatBitrate, median, readCounters } from '../src/live/stats'

const report = (video: object, rtt: number | null = 0.004): [string, unknown][] => [
  ['a', { type: 'codec', mimeType: 'video/H264' }],
  ['b', { type: 'candidate-pair', nominated: false, currentRoundTripTime: 9 }],
  ...(rtt === null
    ? []
    : [['c', { type: 'candidate-pair', nominated: true, currentRoundTripTime: rtt }] as [string, unknown]]),
  ['d', { type: 'inbound-rtp', kind: 'audio', bytesReceived: 1 }],
  ['e', { type: 'inbound-rtp', kind: 'video', frameWidth: 512, frameHeight: 512, ...video }],
]
const first = {
  bytesReceived: 1000,
  framesDecoded: 10,
  framesDropped: 1,
  jitterBufferDelay: 1,
  jitterBufferEmittedCount: 10,
  totalDecodeTime: 0.1,
}
const second = {
  bytesReceived: 251_000,
  framesDecoded: 70,
  framesDropped: 3,
  jitterBufferDelay: 1.06,
  jitterBufferEmittedCount: 70,
  totalDecodeTime: 0.28,
}

describe('stream statistics', () => {
  it('says how much longer sound is held than pictures', () => {
    const sound = (buffered: number, samples: number): [string, unknown][] => [
      ['a', { type: 'inbound-rtp', kind: 'audio', jitterBufferDelay: buffered, jitterBufferEmittedCount: samples }],
      ['p', { type: 'media-playout', totalPlayoutDelay: samples / 100, totalSamplesCount: samples }],
    ]
    const look = (video: object, buffered: number, samples: number, at: number) =>
      readCounters([...sound(buffered, samples), ['v', { type: 'inbound-rtp', kind: 'video', ...video }]], at)!
    const before = look(first, 4800, 48_000, 1000)
    const now = look(second, 4800 + 96_000 * 0.05, 48_000 + 96_000, 3000)
    // 50 ms in the buffer, 10 at the loudspeaker, against 1 and 3 of a picture
    expect(compareCounters(before, now)!.soundLagMs).toBeCloseTo(50 + 10 - 1 - 3)
    expect(compareCounters(before, look(second, 4800, 48_000, 3000))!.soundLagMs).toBeNull()
  })

  it('compares two looks', () => {
    const before = readCounters(report(first), 1000)!
    const now = readCounters(report(second), 3000)!
    const stats = compareCounters(before, now)!
    expect(stats).toMatchObject({ fps: 30, bitrateBps: 1_000_000, dropped: 2, width: 512, height: 512 })
    expect(stats.pathMs).toBeCloseTo(2 + 1 + 3) // half the round trip, buffer, decoder
  })

  it('knows no path without a round trip or without frames', () => {
    const before = readCounters(report(first, null), 1000)!
    expect(compareCounters(before, readCounters(report(second, null), 2000)!)!.pathMs).toBeNull()
    expect(compareCounters(before, readCounters(report(first), 2000)!)).toMatchObject({ fps: 0, pathMs: null })
  })

  it('does not compare two streams', () => {
    const before = readCounters(report(second), 1000)!
    expect(compareCounters(before, readCounters(report(first), 2000)!)).toBeNull()
    expect(compareCounters(before, before)).toBeNull()
    expect(readCounters(report(first).slice(0, 3), 0)).toBeNull()
  })

  it('shows bit rates for people', () => {
    expect([0, 640_400, 2_345_000].map(formatBitrate)).toEqual(['0 kb/s', '640 kb/s', '2.3 Mb/s'])
  })

  it('has medians', () => {
    expect(median([])).toBeNull()
    expect(median([5, 1, 9])).toBe(5)
  })
})

describe("the server's clock", () => {
  it('trusts the quickest answer', () => {
    const clock = new ServerClock()
    expect(clock.best).toBeNull()
    clock.add(1000, 1040, 6020)
    clock.add(2000, 2004, 7002)
    clock.add(3000, 3100, 8010)
    clock.add(5000, 4000, 0) // our clock ran backwards
    expect(clock.best).toEqual({ rttMs: 4, offsetMs: 5000 })
  })

  it('forgets, for clocks drift', () => {
    const clock = new ServerClock()
    clock.add(0, 1, 100)
    for (let i = 0; i < 20; i++) clock.add(i * 1000, i * 1000 + 10, i * 1000 + 305)
    expect(clock.best?.offsetMs).toBe(300)
  })
})
