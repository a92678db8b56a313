/** The life of a connection to one session, as a pure state machine; link.ts gives it its events. */
import { backoffMs } from './backoff'

export type Problem =
  /** The websocket does not open or was closed. */
  | { code: 'unreachable' }
  /** Signalling works, but no media path was found: UDP is blocked. */
  | { code: 'blocked'; candidates: string[] }
  /** Connected, but no picture for a while. */
  | { code: 'stalled' }
  /** The server refused and said why. */
  | { code: 'refused'; reason: string; message: string }

export type Phase =
  | { name: 'off' }
  | { name: 'connecting'; attempt: number; problem?: Problem }
  | { name: 'live' }
  | { name: 'waiting'; attempt: number; retryInMs: number; problem: Problem }
  /** `code` where the server refused for good. */
  | { name: 'ended'; reason: string; code?: string }

export type Event =
  | { type: 'start' }
  | { type: 'picture' }
  | { type: 'lost'; problem: Problem }
  | { type: 'retry' }
  | { type: 'bye'; reason: string }
  | { type: 'stop' }

/** A goodbye of a machine that has handed the session on: the same address leads to the next one. */
export const MOVED = 'moved'

/** Refusals that trying again cannot change. */
const FINAL = new Set(['unknown_session', 'no_token', 'bad_token', 'token_expired', 'forbidden'])

export function nextPhase(phase: Phase, event: Event, random: number = Math.random()): Phase {
  switch (event.type) {
    case 'start':
      return phase.name === 'off' || phase.name === 'ended' ? { name: 'connecting', attempt: 1 } : phase
    case 'stop':
      return { name: 'off' }
    case 'bye':
      if (phase.name === 'off') return phase
      return event.reason === MOVED ? { name: 'connecting', attempt: 1 } : { name: 'ended', reason: event.reason }
    case 'picture':
      return phase.name === 'connecting' ? { name: 'live' } : phase
    case 'lost': {
      if (phase.name !== 'connecting' && phase.name !== 'live') return phase
      const { problem } = event
      if (problem.code === 'refused' && FINAL.has(problem.reason)) {
        return { name: 'ended', reason: problem.message, code: problem.reason }
      }
      const attempt = phase.name === 'live' ? 1 : phase.attempt
      return { name: 'waiting', attempt, retryInMs: backoffMs(attempt, random), problem }
    }
    case 'retry':
      return phase.name === 'waiting'
        ? { name: 'connecting', attempt: phase.attempt + 1, problem: phase.problem }
        : phase
  }
}
