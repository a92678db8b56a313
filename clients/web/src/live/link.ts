/** A connection to one session that looks after itself: signalling, peer, latency, and a new try when it breaks. */
import type { ClientMessage, Control, ServerMessage, SessionState } from '../wire/messages'
import { nowMs, ServerClock } from './clock'
import { eachFrame } from './frames'
import { Peer, type Codec } from './peer'
import { MOVED, nextPhase, type Event, type Phase, type Problem } from './phase'
import { CornerReader, elapsedMs, Latencies } from './probe'
import { Signalling, signalUrl, type Role } from './signalling'
import { compareCounters, readCounters, type Counters, type StreamStats } from './stats'

export interface LinkOptions {
  session: string
  role: Role
  video: HTMLVideoElement
  /** Where the server asks for one, and no cookie says it. */
  token?: string | null
  /** Ask for stacked frames whatever the session's background is. */
  alpha?: boolean
  codec?: Codec | null
  /** The camera's video for a server that tracks. */
  camera?: MediaStreamTrack | null
  /** Whether there is to be sound for `listen`. */
  sound?: boolean
  /** How long ago (ms) what carries this stamp was captured, for those who drive; null when unknown. */
  captureAge?: (stampMs: number, nowMs: number) => number | null
}

export interface LiveStats extends StreamStats {
  /** From server's pencil to this screen, by time code. */
  drawToDisplayMs: number | null
  /** From the camera to this screen, by time code. */
  glassToGlassMs: number | null
}

export interface LinkHandlers {
  onPhase: (phase: Phase) => void
  onState: (state: SessionState) => void
  onStats: (stats: LiveStats) => void
  /** The server says why something was refused, though the connection stays. */
  onNotice: (message: string) => void
}

const CONNECT_TIMEOUT_MS = 8000
const STALL_MS = 5000
const LOOK_EVERY_MS = 1000

/** Whether pictures may go on coming though this has happened: a gateway went, or the session goes on elsewhere. */
const goesOn = (event: Event): boolean =>
  (event.type === 'lost' && event.problem.code === 'unreachable') || (event.type === 'bye' && event.reason === MOVED)

/** Once a stream has a picture, by an element that nobody sees: another one can then show it at once. */
function whenDecoded(stream: MediaStream, act: () => void): void {
  const ahead = document.createElement('video')
  ahead.muted = true
  ahead.onloadeddata = () => {
    act()
    ahead.srcObject = null
  }
  ahead.srcObject = stream
  void ahead.play().catch(() => {})
}

export class Link {
  readonly drawToDisplay = new Latencies()
  readonly glassToGlass = new Latencies()
  #options: LinkOptions
  #camera: MediaStreamTrack | null
  #microphone: MediaStreamTrack | null = null
  #sound = new Audio()
  #listening = false
  #onRefused = (): void => {}
  #handlers: LinkHandlers
  #phase: Phase = { name: 'off' }
  #signalling: Signalling | null = null
  #peer: Peer | null = null
  /** Whose pictures go on, though the way to its server is gone or its session is, until the next peer has some. */
  #former: { peer: Peer; signalling: Signalling | null } | null = null
  /** Shows the pictures of the present peer, if they are not shown yet. */
  #show = (): void => {}
  #clock = new ServerClock()
  #reader = new CornerReader()
  #state: SessionState | null = null
  #counters: Counters | null = null
  #grewAtMs = 0
  #lastCapture: number | null = null
  #answered = false
  #timers = new Set<ReturnType<typeof setTimeout>>()
  #looking: ReturnType<typeof setInterval> | undefined
  #stopFrames: () => void

  constructor(options: LinkOptions, handlers: LinkHandlers) {
    this.#options = options
    this.#camera = options.camera ?? null
    this.#handlers = handlers
    this.#stopFrames = eachFrame(options.video, () => this.#onFrame())
    addEventListener('online', this.#hurry)
    document.addEventListener('visibilitychange', this.#hurry)
  }

  get phase(): Phase {
    return this.#phase
  }

  start(): void {
    this.#happen({ type: 'start' })
  }

  /** For good: a link that was stopped is not started again. */
  stop(): void {
    this.#happen({ type: 'stop' })
    this.#stopFrames()
    removeEventListener('online', this.#hurry)
    document.removeEventListener('visibilitychange', this.#hurry)
  }

  /** Try again now instead of when the time comes. */
  retry(): void {
    this.#happen({ type: 'retry' })
  }

  control(change: Control): void {
    this.#send({ type: 'control', ...change })
  }

  /** Send a camera's video from now on, or none. */
  setCamera(camera: MediaStreamTrack | null): void {
    this.#camera = camera
    void this.#peer?.setCamera(camera).catch(() => {}) // a peer that closes takes the camera of the next one
  }

  /** Send a microphone's sound from now on, or none. */
  setMicrophone(microphone: MediaStreamTrack | null): void {
    this.#microphone = microphone
    void this.#peer?.setMicrophone(microphone).catch(() => {})
  }

  /** Play what is spoken; `onRefused` where the browser waits for a click first. */
  listen(onRefused: () => void): void {
    this.#listening = true
    this.#onRefused = onRefused
    this.#play()
  }

  mute(): void {
    this.#listening = false
    this.#sound.pause()
  }

  sendSample(sample: ArrayBuffer): boolean {
    return this.#peer?.sendSample(sample) ?? false
  }

  #hurry = (): void => {
    if (document.visibilityState === 'visible') this.retry()
  }

  #happen(event: Event): void {
    const before = this.#phase
    const phase = nextPhase(before, event)
    if (phase === before) return
    this.#phase = phase
    if (before.name === 'live' && goesOn(event)) this.#keep()
    if (phase.name === 'connecting') this.#open()
    else if (phase.name !== 'live') this.#close()
    if (phase.name === 'ended' || phase.name === 'off') this.#drop()
    if (phase.name === 'waiting') this.#after(phase.retryInMs, () => this.retry())
    this.#handlers.onPhase(phase)
  }

  #lose(problem: Problem): void {
    this.#happen({ type: 'lost', problem })
  }

  #open(): void {
    this.#close()
    const { session, role, token, alpha = false, codec = null, sound = false, video } = this.#options
    this.#answered = false
    this.#counters = null
    const peer = new Peer(
      {
        camera: role === 'drive' ? this.#camera : undefined,
        microphone: role === 'drive' ? this.#microphone : undefined,
        sound,
        codec,
      },
      {
        onVideo: (stream) => {
          const show = () => {
            if (peer !== this.#peer || video.srcObject === stream) return
            this.#drop()
            video.srcObject = stream
            void video.play().catch(() => {}) // paused by the browser: the poster's button starts it
          }
          this.#show = show
          if (this.#former) whenDecoded(stream, show)
          else show()
        },
        onSound: (stream) => {
          this.#sound.srcObject = stream
          this.#play()
        },
        onSignal: (message) => {
          if (peer === this.#peer) this.#send(message)
        },
        onFailed: () => {
          if (peer === this.#peer) this.#lose(this.#mediaProblem())
          else if (peer === this.#former?.peer) this.#drop()
        },
        onPong: (sentMs, serverMs) => this.#clock.add(sentMs, nowMs(), serverMs),
      },
    )
    this.#peer = peer
    this.#signalling = new Signalling(signalUrl(new URL(location.href), session, role, { alpha, codec, token }), {
      onMessage: (message) =>
        void this.#onMessage(peer, message).catch((error: unknown) => this.#refuse('answer', error)),
      onClosed: () => {
        if (peer === this.#peer) this.#lose({ code: 'unreachable' })
      },
    })
    this.#grewAtMs = performance.now()
    this.#looking = setInterval(() => void this.#look(peer), LOOK_EVERY_MS)
    this.#after(CONNECT_TIMEOUT_MS, () => {
      if (this.#phase.name === 'connecting') this.#lose(this.#mediaProblem())
    })
  }

  #close(): void {
    clearInterval(this.#looking)
    for (const timer of this.#timers) clearTimeout(timer)
    this.#timers.clear()
    if (!this.#former) this.#options.video.pause() // an ending track turns black; so the last picture stays
    this.#signalling?.close()
    this.#peer?.close()
    this.#signalling = this.#peer = null
  }

  /** Have the pictures go on for as long as they come. */
  #keep(): void {
    const peer = this.#peer
    if (peer?.connection.connectionState !== 'connected') return
    this.#drop()
    this.#former = { peer, signalling: this.#signalling } // whose end would be the pictures'
    this.#signalling = this.#peer = null
  }

  #drop(): void {
    const former = this.#former
    if (!former) return
    this.#former = null
    this.#options.video.pause()
    former.signalling?.close()
    former.peer.close()
  }

  #mediaProblem(): Problem {
    if (!this.#answered) return { code: 'unreachable' }
    if (this.#peer?.connection.connectionState === 'connected') return { code: 'stalled' }
    return { code: 'blocked', candidates: [...(this.#peer?.candidates ?? [])] }
  }

  #refuse(reason: string, error: unknown): void {
    this.#lose({ code: 'refused', reason, message: error instanceof Error ? error.message : String(error) })
  }

  async #onMessage(peer: Peer, message: ServerMessage): Promise<void> {
    if (peer !== this.#peer) return
    switch (message.type) {
      case 'ice':
        return peer.offer(message.servers).catch((error: unknown) => this.#refuse('offer', error))
      case 'answer':
        this.#answered = true
        return peer.accept(message.sdp)
      case 'candidate':
        return peer.addCandidate(message.candidate)
      case 'state': {
        const { type: _, ...state } = message
        this.#state = state
        return this.#handlers.onState(state)
      }
      case 'error':
        if ((this.#phase.name === 'live' && message.code !== 'token_expired') || message.code === 'watching_only')
          return this.#handlers.onNotice(message.message)
        if (message.code === 'no_connection') return this.#lose(this.#mediaProblem())
        return this.#lose({ code: 'refused', reason: message.code, message: message.message })
      case 'bye':
        return this.#happen({ type: 'bye', reason: message.reason })
    }
  }

  async #look(peer: Peer): Promise<void> {
    const report = await peer.connection.getStats()
    if (peer !== this.#peer) return
    peer.ping(nowMs())
    const before = this.#counters
    const counters = readCounters(report.entries(), performance.now())
    if (!counters) return
    this.#counters = counters
    if (counters.framesDecoded > 0) {
      this.#show()
      this.#happen({ type: 'picture' })
    }
    if (counters.framesDecoded > (before?.framesDecoded ?? 0) || document.hidden) this.#grewAtMs = counters.atMs
    else if (counters.atMs - this.#grewAtMs > STALL_MS) return this.#lose({ code: 'stalled' })
    const stream = before && compareCounters(before, counters)
    if (!stream || this.#phase.name !== 'live') return
    const probing = this.#state?.probe ?? false
    const stats = {
      ...stream,
      drawToDisplayMs: probing ? this.drawToDisplay.recentMedian : null,
      glassToGlassMs: probing ? this.glassToGlass.recentMedian : null,
    }
    this.#send({
      type: 'report',
      fps: stats.fps,
      glass_to_glass_ms: stats.glassToGlassMs,
      draw_to_display_ms: stats.drawToDisplayMs,
      bitrate_bps: stats.bitrateBps,
      dropped: stats.dropped,
      width: stats.width,
      height: stats.height,
      sound_lag_ms: stats.soundLagMs,
    })
    this.#handlers.onStats(stats)
  }

  #onFrame(): void {
    if (!this.#former) this.#happen({ type: 'picture' })
    if (!this.#state?.probe) return
    const code = this.#reader.read(this.#options.video, this.#state.width)
    if (!code) return
    const now = nowMs()
    const clock = this.#clock.best
    if (clock) this.drawToDisplay.add(elapsedMs(now + clock.offsetMs, code.drawnMs))
    const { captureAge } = this.#options
    if (captureAge && code.capturedMs !== null && code.capturedMs !== this.#lastCapture) {
      const age = captureAge(code.capturedMs, now)
      if (age !== null) this.glassToGlass.add(age)
    }
    this.#lastCapture = code.capturedMs // the same landmarks shown again are not late
  }

  #play(): void {
    if (!this.#listening || !this.#sound.srcObject) return
    this.#sound.play().catch(({ name }: DOMException) => {
      if (name !== 'NotAllowedError') return // another stream has come in between
      this.#listening = false
      this.#onRefused()
    })
  }

  #send(message: ClientMessage): void {
    this.#signalling?.send(message)
  }

  #after(ms: number, act: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer)
      act()
    }, ms)
    this.#timers.add(timer)
  }
}
