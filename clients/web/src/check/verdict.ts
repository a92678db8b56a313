/** What the self-test says of one thing, and how measured values are judged. */
import type { Trouble } from '../studio/help_texts'

export type Tone = 'ok' | 'warning' | 'failed' | 'skipped'

export interface Verdict {
  tone: Tone
  text: string
  /** What people can do about it. */
  steps?: string[]
  /** For those who look for the fault. */
  detail?: string
}

const SLOW_MS = 150
const FAR_MS = 100
const CLOCK_OFF_MS = 5000

export function fromTrouble({ title, text, steps, detail }: Trouble, tone: Tone = 'failed'): Verdict {
  return { tone, text: `${title}. ${text}`, steps, detail }
}

export function judgeRenderer(renderer: { name: string; software: boolean } | null): Verdict {
  if (!renderer)
    return {
      tone: 'failed',
      text: 'This browser draws no WebGL 2: no avatar on a transparent background.',
      steps: [
        'Switch on hardware acceleration in the browser’s settings, then start it again',
        'Bring the graphics driver up to date, or use a current Chrome, Edge, Firefox or Safari',
      ],
    }
  if (renderer.software)
    return {
      tone: 'warning',
      text: 'WebGL 2 works, but the processor draws it: it takes more of it than need be.',
      steps: ['Switch on hardware acceleration in the browser’s settings, if there is a graphics card'],
      detail: renderer.name,
    }
  return { tone: 'ok', text: 'WebGL 2 is there.', detail: renderer.name }
}

export interface Decoder {
  codec: 'H.264' | 'VP8'
  offered: boolean
  /** Null where the browser does not say. */
  smooth: boolean | null
}

export function judgeDecoders(decoders: readonly Decoder[]): Verdict {
  const offered = decoders.filter((decoder) => decoder.offered)
  const names = offered.map(({ codec }) => codec).join(' and ')
  if (offered.length === 0)
    return {
      tone: 'failed',
      text: 'This browser receives neither H.264 nor VP8, so it can show no avatar.',
      steps: ['Use a current Chrome, Edge, Firefox or Safari'],
    }
  const rough = offered.filter(({ smooth }) => smooth === false)
  if (rough.length === offered.length)
    return {
      tone: 'warning',
      text: `${names}: this device says that it does not decode them smoothly.`,
      steps: ['Choose a lower quality in the studio', 'Close other programs'],
    }
  return { tone: 'ok', text: `${names} can be received.` }
}

/** A way that media take: kinds of candidates (host, srflx, prflx, relay) and the protocol. */
export interface Path {
  local: string
  remote: string
  protocol: string
}

export function judgePath(path: Path | null, fps: number): Verdict {
  const detail = path ? `${path.protocol}, ${path.local} here, ${path.remote} there` : undefined
  const pictures = `Pictures come, ${fps.toFixed(0)} a second`
  if (path && [path.local, path.remote].includes('relay'))
    return {
      tone: 'warning',
      text: `${pictures}, but only by way of a TURN server: the direct way is closed, which costs time.`,
      steps: ['Let UDP to the server through its firewall', 'Switch off a VPN, if there is one'],
      detail,
    }
  return { tone: 'ok', text: `${pictures}, straight from the server.`, detail }
}

export function judgeLatency(drawToDisplayMs: number | null): Verdict {
  if (drawToDisplayMs === null)
    return {
      tone: 'warning',
      text: 'The time code could not be read off the pictures, so their delay is not known.',
      steps: ['Keep this page in sight while it tests: hidden pages show no pictures'],
    }
  const text = `${Math.max(drawToDisplayMs, 0).toFixed(0)} ms from the server’s drawing to this screen.`
  if (drawToDisplayMs <= SLOW_MS) return { tone: 'ok', text }
  return {
    tone: 'warning',
    text,
    steps: ['Close other programs here and on the server', 'By wire instead of radio, or nearer to the access point'],
  }
}

export function judgeClock(clock: { rttMs: number; offsetMs: number } | null): Verdict {
  if (!clock)
    return { tone: 'failed', text: 'The data channel does not answer.', steps: ['Load the page again', 'See above'] }
  const { rttMs, offsetMs } = clock
  const off = Math.abs(offsetMs)
  const clocks = off < 1000 ? 'clocks agree' : `clocks are ${(off / 1000).toFixed(1)} s apart`
  const text = `${rttMs.toFixed(rttMs < 10 ? 1 : 0)} ms there and back; ${clocks}.`
  if (off > CLOCK_OFF_MS)
    return {
      tone: 'warning',
      text,
      steps: ['Let this device and the server set their clocks by network time: links expire by them'],
    }
  if (rttMs > FAR_MS)
    return { tone: 'warning', text, steps: ['The server is far, or the network busy: every movement comes that late'] }
  return { tone: 'ok', text }
}

/** One sentence on all of it. */
export function summarise(verdicts: readonly Verdict[]): string {
  const count = (tone: Tone) => verdicts.filter((verdict) => verdict.tone === tone).length
  const [failed, warnings] = [count('failed'), count('warning')]
  if (failed > 0) return failed === 1 ? 'One thing does not work.' : `${failed} things do not work.`
  if (warnings > 0) return `It works; ${warnings === 1 ? 'one thing' : `${warnings} things`} could be better.`
  return 'Everything works.'
}
