/** Checks of the way to the server: a short session of the first avatar, watched as a viewer does. */
import { nowMs, ServerClock } from '../live/clock'
import { eachFrame } from '../live/frames'
import { Peer } from '../live/peer'
import type { Problem } from '../live/phase'
import { CornerReader, elapsedMs, Latencies } from '../live/probe'
import { Signalling, signalUrl } from '../live/signalling'
import { troubleWithConnection } from '../studio/help_texts'
import { server, ServerError, type ServerMessage, type ServerState } from '../wire/messages'
import { fromTrouble, judgeClock, judgeLatency, judgePath, type Path, type Verdict } from './verdict'

const CONNECT_MS = 12_000
const WATCH_MS = 3000
const PING_EVERY_MS = 150
const PICTURE = { width: 256, height: 320 }

class ConnectionError extends Error {
  readonly problem: Problem

  constructor(problem: Problem) {
    super(problem.code)
    this.problem = problem
  }
}

/** A viewer's connection, from its first picture on. */
class Watch {
  readonly clock = new ServerClock()
  readonly drawToDisplay = new Latencies()
  frames = 0
  #peer: Peer
  #signalling: Signalling
  #video = Object.assign(document.createElement('video'), { muted: true, playsInline: true })
  #reader = new CornerReader()
  #stopFrames: () => void
  #answered = false
  #begun: Promise<void>

  constructor(session: string, relayOnly: boolean) {
    this.#video.className = 'unseen' // frames of what is not in the page are not called back
    document.body.append(this.#video)
    let begin = () => {}
    let fail: (error: Error) => void = () => {}
    const lose = () => fail(new ConnectionError(this.#problem()))
    this.#peer = new Peer(
      { camera: undefined, microphone: undefined, sound: false, codec: null, relayOnly },
      {
        onVideo: (stream) => {
          this.#video.srcObject = stream
          void this.#video.play().catch(() => {})
        },
        onSound: () => {},
        onSignal: (message) => this.#signalling.send(message),
        onFailed: lose,
        onPong: (sentMs, serverMs) => this.clock.add(sentMs, nowMs(), serverMs),
      },
    )
    this.#signalling = new Signalling(signalUrl(new URL(location.href), session, 'view'), {
      onMessage: (message) => void this.#take(message).catch((error: Error) => fail(error)),
      onClosed: lose,
    })
    this.#stopFrames = eachFrame(this.#video, () => {
      this.frames += 1
      this.#measure()
      begin()
    })
    this.#begun = new Promise((resolve, reject) => {
      begin = resolve
      fail = reject
      setTimeout(lose, CONNECT_MS)
    })
  }

  /** Until the first picture; throws ConnectionError. */
  begun(): Promise<void> {
    return this.#begun
  }

  /** Watch on for a while; pictures a second. */
  async watch(): Promise<number> {
    const [began, before] = [performance.now(), this.frames]
    const pinging = setInterval(() => this.#peer.ping(nowMs()), PING_EVERY_MS)
    await new Promise((resolve) => setTimeout(resolve, WATCH_MS))
    clearInterval(pinging)
    return (1000 * (this.frames - before)) / (performance.now() - began)
  }

  async path(): Promise<Path | null> {
    return readPath((await this.#peer.connection.getStats()) as unknown as Map<string, Record<string, unknown>>)
  }

  close(): void {
    this.#stopFrames()
    this.#signalling.close()
    this.#peer.close()
    this.#video.remove()
  }

  #measure(): void {
    const clock = this.clock.best
    const code = clock && this.#reader.read(this.#video, PICTURE.width)
    if (code) this.drawToDisplay.add(elapsedMs(nowMs() + clock.offsetMs, code.drawnMs))
  }

  async #take(message: ServerMessage): Promise<void> {
    if (message.type === 'ice') await this.#peer.offer(message.servers)
    else if (message.type === 'answer') {
      this.#answered = true
      await this.#peer.accept(message.sdp)
    } else if (message.type === 'candidate') await this.#peer.addCandidate(message.candidate)
    else if (message.type === 'error')
      throw new ConnectionError(
        message.code === 'no_connection'
          ? this.#problem()
          : { code: 'refused', reason: message.code, message: message.message },
      )
  }

  #problem(): Problem {
    if (!this.#answered) return { code: 'unreachable' }
    if (this.#peer.connection.connectionState === 'connected') return { code: 'stalled' }
    return { code: 'blocked', candidates: [...this.#peer.candidates] }
  }
}

/** The way that is in use, out of getStats(). */
export function readPath(stats: ReadonlyMap<string, Record<string, unknown>>): Path | null {
  const entries = [...stats.values()]
  const chosen = entries.find(({ type }) => type === 'transport')?.selectedCandidatePairId
  const pair = entries.find(
    ({ type, id, nominated, state }) =>
      type === 'candidate-pair' && (chosen ? id === chosen : nominated === true && state === 'succeeded'),
  )
  const local = stats.get(String(pair?.localCandidateId))
  const remote = stats.get(String(pair?.remoteCandidateId))
  if (!local || !remote) return null
  return {
    local: String(local.candidateType),
    remote: String(remote.candidateType),
    protocol: String(local.relayProtocol ?? local.protocol),
  }
}

export async function checkServer(): Promise<{ verdict: Verdict; known: ServerState | null }> {
  const began = performance.now()
  try {
    const known = await server.state()
    const text = `lhm-live ${known.version} answered in ${(performance.now() - began).toFixed(0)} ms.`
    if (known.avatars.length > 0) return { verdict: { tone: 'ok', text }, known }
    const steps = ['Wait a moment: the first avatar is being made', 'Or make one of a photo in the studio']
    return { verdict: { tone: 'warning', text: `${text} It has no avatar yet.`, steps }, known }
  } catch (error) {
    return { verdict: judgeFailure(error), known: null }
  }
}

/** All that is measured in one short session. */
export async function checkConnection({
  avatars,
  ice_servers = [],
}: ServerState): Promise<Record<'media' | 'latency' | 'clock' | 'turn', Verdict>> {
  const untested: Verdict = { tone: 'skipped', text: 'Not without a connection to the server.' }
  const verdicts = { media: untested, latency: untested, clock: untested, turn: untested }
  if (avatars.length === 0) return verdicts
  let session: string
  try {
    const wish = { avatar: avatars[0].id, source: 'idle' as const, probe: true, ...PICTURE }
    session = (await server.startSession(wish)).id
  } catch (error) {
    return { ...verdicts, media: judgeFailure(error) }
  }
  try {
    const direct = new Watch(session, false)
    try {
      await direct.begun()
      const fps = await direct.watch()
      verdicts.media = judgePath(await direct.path(), fps)
      verdicts.latency = judgeLatency(direct.drawToDisplay.recentMedian)
      verdicts.clock = judgeClock(direct.clock.best)
    } catch (error) {
      verdicts.media = judgeFailure(error)
    } finally {
      direct.close()
    }
    verdicts.turn = await checkTurn(session, ice_servers, verdicts.media.tone === 'failed')
  } finally {
    await server.endSession(session).catch(() => {}) // it ends by itself
  }
  return verdicts
}

async function checkTurn(session: string, iceServers: RTCIceServer[], needed: boolean): Promise<Verdict> {
  const relays = iceServers.flatMap(({ urls }) => urls).filter((url) => /^turns?:/.test(url))
  if (relays.length === 0)
    return needed
      ? {
          tone: 'warning',
          text: 'There is none, and the direct way is closed.',
          steps: ['Give lhm-live a TURN server: rtc in its settings'],
        }
      : { tone: 'skipped', text: 'There is none, and none is needed here.' }
  const relayed = new Watch(session, true)
  try {
    await relayed.begun()
    return {
      tone: 'ok',
      text: 'Pictures come through it too, where the direct way is closed.',
      detail: relays.join(' '),
    }
  } catch (error) {
    const found = error instanceof ConnectionError && error.problem.code === 'blocked' ? error.problem.candidates : []
    return {
      tone: needed ? 'failed' : 'warning',
      text:
        found.length > 0
          ? 'It answers, but leads to no connection.'
          : 'It does not answer, or knows neither name nor password.',
      steps: [
        found.length > 0
          ? 'Let the TURN server reach this server: its own firewall, and what it denies (denied-peer-ip)'
          : 'Check address, name and password in rtc of the settings, and that its port is open',
      ],
      detail: relays.join(' '),
    }
  } finally {
    relayed.close()
  }
}

function judgeFailure(error: unknown): Verdict {
  if (error instanceof ConnectionError) return fromTrouble(troubleWithConnection(error.problem))
  if (error instanceof ServerError && error.code !== 'unreachable')
    return fromTrouble(troubleWithConnection({ code: 'refused', reason: error.code, message: error.message }))
  if (error instanceof ServerError) return fromTrouble(troubleWithConnection({ code: 'unreachable' }))
  return { tone: 'failed', text: (error as Error).message }
}
