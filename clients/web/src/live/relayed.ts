/**
 * A session watched by way of its relay, a Janus: our server only hands offer and answer on, the pictures come from there.
 *   ?via=janus
 */
import { nextPhase, type Event, type Phase } from './phase'
import { sessionOfPage, type Screen } from './showing'
import { readCounters } from './stats'
import { keepToken } from './token'

const CONNECT_TIMEOUT_MS = 10_000
const GATHER_MS = 2000
const STALL_MS = 3000
const LOOK_EVERY_MS = 500
const COME_BACK_MS = 5000

interface Invitation {
  id: string
  sdp: string
  ice_servers: RTCIceServer[]
}

/** A refusal of the server's. */
class Refusal extends Error {
  readonly reason: string

  constructor(reason: string, message: string) {
    super(message)
    this.reason = reason
  }
}

/** Show it for as long as the page is open. */
export function showRelayed({ video, sound }: Screen, onPhase: (phase: Phase) => void): RelayLink {
  const speech = new Audio()
  const onTrack = (track: MediaStreamTrack) => {
    const stream = new MediaStream([track])
    if (track.kind === 'video') {
      video.srcObject = stream
      void video.play().catch(() => {})
    } else {
      speech.srcObject = stream
      track.onunmute = () => sound && (sound.hidden = false)
    }
  }
  if (sound) {
    sound.onclick = () => {
      if (speech.paused) void speech.play().catch(() => {})
      else speech.pause()
    }
    speech.onplay = () => (sound.textContent = 'Sound off')
    speech.onpause = () => (sound.textContent = 'Sound on')
  }
  const link = new RelayLink(sessionOfPage(), keepToken(), onTrack, (phase) => {
    if (phase.name === 'ended') setTimeout(() => link.start(), COME_BACK_MS)
    onPhase(phase)
  })
  addEventListener('pagehide', () => link.stop())
  window.lhm = { drawToDisplay: [], glassToGlass: [], phase: () => link.phase }
  link.start()
  return link
}

export class RelayLink {
  #phase: Phase = { name: 'off' }
  #connection: RTCPeerConnection | null = null
  #viewer: string | null = null
  #retrying: ReturnType<typeof setTimeout> | undefined
  #looking: ReturnType<typeof setInterval> | undefined
  #viewers: string
  #headers: Record<string, string>
  #onTrack: (track: MediaStreamTrack) => void
  #onPhase: (phase: Phase) => void

  constructor(
    session: string,
    token: string | null,
    onTrack: (track: MediaStreamTrack) => void,
    onPhase: (phase: Phase) => void,
  ) {
    this.#viewers = `/api/sessions/${encodeURIComponent(session)}/relay/viewers`
    this.#headers = token === null ? {} : { Authorization: `Bearer ${token}` }
    this.#onTrack = onTrack
    this.#onPhase = onPhase
  }

  get phase(): Phase {
    return this.#phase
  }

  start(): void {
    this.#happen({ type: 'start' })
  }

  stop(): void {
    this.#happen({ type: 'stop' })
  }

  #happen(event: Event): void {
    const before = this.#phase
    const phase = nextPhase(before, event)
    if (phase === before) return
    this.#phase = phase
    clearTimeout(this.#retrying)
    if (phase.name === 'connecting') this.#open()
    else if (phase.name !== 'live') this.#close()
    if (phase.name === 'waiting') this.#retrying = setTimeout(() => this.#happen({ type: 'retry' }), phase.retryInMs)
    this.#onPhase(phase)
  }

  #open(): void {
    this.#close()
    const connection = new RTCPeerConnection({ bundlePolicy: 'max-bundle' })
    this.#connection = connection
    connection.ontrack = ({ track }) => this.#onTrack(track)
    connection.onconnectionstatechange = () => {
      if (connection.connectionState === 'failed') this.#lose('stalled')
    }
    this.#watch(connection)
    this.#negotiate(connection).catch((error: unknown) => {
      if (connection !== this.#connection) return
      if (!(error instanceof Refusal)) return this.#lose('unreachable')
      this.#happen({ type: 'lost', problem: { code: 'refused', reason: error.reason, message: error.message } })
    })
  }

  #close(): void {
    clearInterval(this.#looking)
    this.#connection?.close()
    if (this.#viewer !== null) {
      // also while the page closes; whom the server does not hear from it finds out about by itself
      void this.#ask('DELETE', `/${this.#viewer}`, undefined, true).catch(() => {})
    }
    this.#connection = this.#viewer = null
  }

  #lose(code: 'stalled' | 'unreachable'): void {
    this.#happen({ type: 'lost', problem: { code } })
  }

  async #negotiate(connection: RTCPeerConnection): Promise<void> {
    const invited = (await (await this.#ask('POST', '')).json()) as Invitation
    if (connection !== this.#connection) return
    this.#viewer = invited.id
    connection.setConfiguration({ ...connection.getConfiguration(), iceServers: invited.ice_servers })
    await connection.setRemoteDescription({ type: 'offer', sdp: invited.sdp })
    await connection.setLocalDescription()
    await gathered(connection)
    if (connection !== this.#connection) return
    await this.#ask('PUT', `/${invited.id}`, { sdp: connection.localDescription?.sdp })
  }

  /** Notice the first picture, and when no more come. */
  #watch(connection: RTCPeerConnection): void {
    let pictures = 0
    let grewAtMs = performance.now()
    this.#looking = setInterval(async () => {
      const counters = readCounters((await connection.getStats()).entries(), performance.now())
      if (connection !== this.#connection) return
      const decoded = counters?.framesDecoded ?? 0
      if (decoded > pictures || document.hidden) grewAtMs = performance.now()
      pictures = decoded
      if (decoded > 0) this.#happen({ type: 'picture' })
      const patience = this.#phase.name === 'live' ? STALL_MS : CONNECT_TIMEOUT_MS
      if (performance.now() - grewAtMs > patience) this.#lose('stalled')
    }, LOOK_EVERY_MS)
  }

  async #ask(method: string, path: string, body?: unknown, keepalive = false): Promise<Response> {
    const response = await fetch(this.#viewers + path, {
      method,
      keepalive,
      headers: { ...this.#headers, 'Content-Type': 'application/json' },
      body: body === undefined ? null : JSON.stringify(body),
    })
    if (response.ok) return response
    const { error } = (await response.json()) as { error: { code: string; message: string } }
    throw new Refusal(error.code, error.message)
  }
}

/** Wait until all addresses are in the description, or long enough. */
async function gathered(connection: RTCPeerConnection): Promise<void> {
  await new Promise<void>((resolve) => {
    const look = () => connection.iceGatheringState === 'complete' && resolve()
    connection.addEventListener('icegatheringstatechange', look)
    setTimeout(resolve, GATHER_MS)
    look()
  })
}
