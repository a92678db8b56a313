import { describe, expect, it } from 'vitest'
import { backoffMs } from '../src/live/backoff'
import { nextPhase, type Event, type Phase, type Problem } from '../src/live/phase'

const run = (events: Event[], from: Phase = { name: 'off' }) => events.reduce((p, e) => nextPhase(p, e, 1), from)
const unreachable: Problem = { code: 'unreachable' }
const lost: Event = { type: 'lost', problem: unreachable }

describe('the life of a connection', () => {
  it('goes from off to live', () => {
    expect(run([{ type: 'start' }])).toEqual({ name: 'connecting', attempt: 1 })
    expect(run([{ type: 'start' }, { type: 'picture' }])).toEqual({ name: 'live' })
  })

  it('waits longer from try to try, and remembers why', () => {
    const first = run([{ type: 'start' }, lost])
    expect(first).toEqual({ name: 'waiting', attempt: 1, retryInMs: 500, problem: unreachable })
    const second = run([{ type: 'retry' }, lost], first)
    expect(second).toEqual({ name: 'waiting', attempt: 2, retryInMs: 1000, problem: unreachable })
    expect(run([{ type: 'retry' }], second)).toEqual({ name: 'connecting', attempt: 3, problem: unreachable })
  })

  it('starts counting anew after it was live', () => {
    const phase = run([{ type: 'start' }, lost, { type: 'retry' }, { type: 'picture' }, lost])
    expect(phase).toMatchObject({ name: 'waiting', attempt: 1 })
  })

  it('gives up only where trying again is useless', () => {
    const refuse = (reason: string): Event => ({ type: 'lost', problem: { code: 'refused', reason, message: 'No.' } })
    expect(run([{ type: 'start' }, refuse('unknown_session')])).toEqual({
      name: 'ended',
      reason: 'No.',
      code: 'unknown_session',
    })
    expect(run([{ type: 'start' }, refuse('busy')])).toMatchObject({ name: 'waiting' })
  })

  it('comes back at once where the session has moved', () => {
    const phase = run([{ type: 'start' }, { type: 'picture' }, { type: 'bye', reason: 'moved' }])
    expect(phase).toEqual({ name: 'connecting', attempt: 1 })
  })

  it('ends on a bye, and can be started again', () => {
    const ended = run([{ type: 'start' }, { type: 'picture' }, { type: 'bye', reason: 'stopped' }])
    expect(ended).toEqual({ name: 'ended', reason: 'stopped' })
    expect(run([lost, { type: 'retry' }, { type: 'picture' }], ended)).toEqual(ended)
    expect(run([{ type: 'start' }], ended)).toEqual({ name: 'connecting', attempt: 1 })
  })

  it('does not hear late news when it is off', () => {
    for (const event of [lost, { type: 'retry' }, { type: 'picture' }, { type: 'bye', reason: '' }] as Event[]) {
      expect(run([event])).toEqual({ name: 'off' })
    }
    expect(run([{ type: 'start' }, lost, { type: 'stop' }, { type: 'retry' }])).toEqual({ name: 'off' })
  })

  it('ignores a second loss while it waits', () => {
    const waiting = run([{ type: 'start' }, lost])
    expect(run([lost], waiting)).toBe(waiting)
  })
})

describe('backoff', () => {
  it('doubles up to a limit', () => {
    expect([1, 2, 3, 4, 5, 6, 7, 50].map((attempt) => backoffMs(attempt, 1))).toEqual([
      500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000,
    ])
  })

  it('spreads over half of it', () => {
    expect(backoffMs(3, 0)).toBe(1000)
    for (let i = 0; i < 100; i++) expect(backoffMs(3)).toBeGreaterThanOrEqual(1000)
  })
})
