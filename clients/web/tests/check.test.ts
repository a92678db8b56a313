import { describe, expect, it } from 'vitest'
import { writeReport } from '../src/check/report'
import { readPath } from '../src/check/server'
import { judgeClock, judgeDecoders, judgeLatency, judgePath, judgeRenderer, summarise } from '../src/check/verdict'

describe('the self-test judges', () => {
  it.each([
    [null, 'failed'],
    [{ name: 'SwiftShader', software: true }, 'warning'],
    [{ name: 'a card', software: false }, 'ok'],
  ])('graphics', (renderer, tone) => expect(judgeRenderer(renderer).tone).toBe(tone))

  it.each([
    [false, null, false, null, 'failed'],
    [true, null, false, null, 'ok'],
    [true, false, true, true, 'ok'],
    [true, false, true, false, 'warning'],
    [false, null, true, false, 'warning'],
  ])('video formats', (h264, h264Smooth, vp8, vp8Smooth, tone) => {
    const verdict = judgeDecoders([
      { codec: 'H.264', offered: h264, smooth: h264Smooth },
      { codec: 'VP8', offered: vp8, smooth: vp8Smooth },
    ])
    expect(verdict.tone).toBe(tone)
  })

  it('a relayed path as worse than a direct one', () => {
    const path = { local: 'relay', remote: 'host', protocol: 'udp' }
    expect(judgePath(path, 30)).toMatchObject({ tone: 'warning', detail: 'udp, relay here, host there' })
    expect(judgePath({ ...path, local: 'prflx' }, 29.6)).toMatchObject({
      tone: 'ok',
      text: expect.stringContaining('30'),
    })
  })

  it.each([
    [null, 'warning'],
    [-2, 'ok'],
    [150, 'ok'],
    [151, 'warning'],
  ])('a delay of %s ms', (ms, tone) => expect(judgeLatency(ms).tone).toBe(tone))

  it.each([
    [null, 'failed'],
    [{ rttMs: 2, offsetMs: -300 }, 'ok'],
    [{ rttMs: 101, offsetMs: 0 }, 'warning'],
    [{ rttMs: 2, offsetMs: -6000 }, 'warning'],
  ])('the way there and back', (clock, tone) => expect(judgeClock(clock).tone).toBe(tone))

  it('all of it in a sentence', () => {
    const ok = { tone: 'ok' as const, text: '' }
    expect(summarise([ok, { ...ok, tone: 'skipped' }])).toBe('Everything works.')
    expect(summarise([ok, { ...ok, tone: 'warning' }])).toContain('could be better')
    expect(
      summarise([
        { ...ok, tone: 'warning' },
        { ...ok, tone: 'failed' },
      ]),
    ).toBe('One thing does not work.')
  })
})

describe('the path in use', () => {
  const local = { candidateType: 'relay', protocol: 'udp', relayProtocol: 'tcp' }
  const remote = { candidateType: 'host', protocol: 'udp' }
  const pair = (id: string, how: object) => [
    id,
    { type: 'candidate-pair', id, localCandidateId: 'l', remoteCandidateId: 'r', ...how },
  ]
  const stats = (...entries: unknown[][]) =>
    new Map(
      entries.concat([
        ['l', local],
        ['r', remote],
      ]) as [string, Record<string, unknown>][],
    )

  it('is the one that the transport names, else the nominated one', () => {
    const path = { local: 'relay', remote: 'host', protocol: 'tcp' }
    expect(readPath(stats(['t', { type: 'transport', selectedCandidatePairId: 'p' }], pair('p', {})))).toEqual(path)
    expect(readPath(stats(pair('p', { nominated: true, state: 'succeeded' })))).toEqual(path)
    expect(readPath(stats(pair('p', { nominated: false, state: 'waiting' })))).toBeNull()
  })
})

describe('the report', () => {
  it('holds every line and no token', () => {
    const text = writeReport(
      [
        { title: 'Camera', verdict: { tone: 'failed', text: 'Refused.', detail: 'why' } },
        { title: 'Microphone', verdict: null },
      ],
      { page: new URL('https://example.org/check?token=secret'), browser: 'B', server: null, at: new Date(0) },
    )
    expect(text).toContain('page     https://example.org/check\n')
    expect(text).not.toContain('secret')
    expect(text).toContain('failed   Camera: Refused. (why)\nuntested Microphone\n')
  })
})
