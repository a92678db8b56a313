import { describe, expect, it } from 'vitest'
import { isStacked } from '../src/live/compositor'
import { parseServerMessage, signalUrl } from '../src/live/signalling'

describe('signalling', () => {
  it('has an address for each role', () => {
    expect(signalUrl(new URL('http://localhost:8080/'), 'a b', 'drive')).toBe(
      'ws://localhost:8080/v1/signal/a%20b?role=drive',
    )
    expect(
      signalUrl(new URL('https://host/view/x?bg=fff'), 'x', 'view', { alpha: true, codec: 'vp8', token: 't&k' }),
    ).toBe('wss://host/v1/signal/x?role=view&alpha=1&codec=vp8&token=t%26k')
  })

  it('understands what the server says, and nothing else', () => {
    expect(parseServerMessage('{"type":"bye","reason":"ended"}')).toEqual({ type: 'bye', reason: 'ended' })
    for (const text of ['', '{', 'null', '3', '"bye"', '[]', '{}', '{"type":7}', '{"type":"offer"}']) {
      expect(parseServerMessage(text), text).toBeNull()
    }
  })
})

describe('stacked frames', () => {
  it('are told by their shape alone', () => {
    expect(isStacked(512, 1024, 512, 512)).toBe(true)
    expect(isStacked(512, 512, 512, 512)).toBe(false)
    expect(isStacked(360, 1280, 720, 1280)).toBe(true) // scaled down by a lower quality
    expect(isStacked(720, 1280, 720, 1280)).toBe(false)
    expect(isStacked(0, 0, 512, 512)).toBe(false)
    expect(isStacked(512, 1024, 0, 0)).toBe(false)
  })
})
