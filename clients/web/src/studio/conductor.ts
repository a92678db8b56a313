/** What the studio does: makes avatars, starts and ends sessions, opens the camera and follows it. */
import { nowMs } from '../live/clock'
import { Link, type LiveStats } from '../live/link'
import type { Phase } from '../live/phase'
import { CornerReader, elapsedMs } from '../live/probe'
import { CameraError, closeCamera, openCamera } from '../tracking/camera'
import { Tracking } from '../tracking/tracking'
import { encodeLandmarks, type LandmarkSample } from '../wire/landmark_sample'
import { followJob, server, ServerError, type Source } from '../wire/messages'
import { eachFrame } from '../live/frames'
import { troubleWithCamera, troubleWithConnection, troubleWithPhoto, troubleWithTracking } from './help_texts'
import { pictureSize, serverBackground, type Settings, type Store } from './state'
import { toast } from './dom'

const LOOK_EVERY_MS = 4000

export interface Eyes {
  /** Where the avatar is shown. */
  video: HTMLVideoElement
  /** Where the camera is shown. */
  self: HTMLVideoElement
  onStats: (stats: LiveStats | null) => void
  onSample: (sample: LandmarkSample) => void
}

export class Conductor {
  #store: Store
  #eyes: Eyes
  #link: Link | null = null
  #tracking: Tracking | null = null
  #stopCodes: () => void = () => {}
  /** When the camera showed which stamp, where it draws time codes as test cameras do. */
  #shownAtMs = new Map<number, number>()

  constructor(store: Store, eyes: Eyes) {
    this.#store = store
    this.#eyes = eyes
  }

  async begin(): Promise<void> {
    await this.refresh()
    setInterval(() => {
      if (this.#store.state.phase.name !== 'live') void this.refresh()
    }, LOOK_EVERY_MS)
    const id = new URLSearchParams(location.hash.slice(1)).get('session')
    const running = this.#store.state.server?.sessions.find((session) => session.id === id)
    if (!running) return
    this.#store.set({ avatar: running.avatar, source: running.source })
    if (await this.#needCamera(running.source)) this.#join(running.id)
  }

  /** Ask the server what there is. */
  async refresh(): Promise<void> {
    try {
      const known = await server.state()
      const { avatar, replay, source } = this.#store.state
      this.#store.set({
        server: known,
        serverDown: false,
        avatar: known.avatars.some(({ id }) => id === avatar) ? avatar : (known.avatars[0]?.id ?? null),
        replay: replay !== null && known.replays.includes(replay) ? replay : (known.replays[0] ?? null),
        ...(!known.sources.includes(source) && { source: known.sources[0] ?? 'idle' }),
      })
    } catch {
      this.#store.set({ serverDown: true })
    }
  }

  /** Make an avatar of a photo. */
  async make(photo: File): Promise<void> {
    if (this.#store.state.job?.state === 'running') return toast('One photo at a time: this one is still being made.')
    const waiting = {
      state: 'running' as const,
      stage: 'Sending the photo',
      fraction: 0,
      message: photo.name,
      warnings: [],
    }
    this.#store.set({ job: waiting, trouble: null })
    try {
      const { job: id } = await server.uploadPhoto(photo)
      const job = await followJob(id, (progress) => this.#store.set({ job: progress }))
      if (job.state === 'failed') this.#store.set({ trouble: troubleWithPhoto(job.message, job.warnings) })
      await this.refresh()
      if (job.avatar) this.#store.set({ avatar: job.avatar })
    } catch (error) {
      this.#store.set({ trouble: troubleWithPhoto((error as Error).message, []) })
    } finally {
      this.#store.set({ job: null })
    }
  }

  async remove(avatar: string): Promise<void> {
    try {
      await server.deleteAvatar(avatar)
    } catch (error) {
      toast((error as Error).message)
    }
    await this.refresh()
  }

  async start(): Promise<void> {
    const { avatar, source, replay, settings } = this.#store.state
    if (avatar === null) return
    this.#store.set({ starting: true, trouble: null })
    try {
      if (!(await this.#needCamera(source))) return
      const { framing, mirror, quality, probe } = settings
      const stage = this.#eyes.video.parentElement
      const { id } = await server.startSession({
        avatar,
        source,
        ...(source === 'replay' && replay !== null && { replay }),
        ...pictureSize(stage?.clientWidth ?? 0, stage?.clientHeight ?? 0),
        ...{ framing, mirror, quality, probe },
        background: serverBackground(settings.background),
      })
      this.#join(id)
    } catch (error) {
      this.#releaseCamera()
      const { message } = error as Error
      const problem =
        error instanceof ServerError && error.code !== 'unreachable'
          ? { code: 'refused' as const, reason: error.code, message }
          : { code: 'unreachable' as const }
      this.#store.set({ trouble: troubleWithConnection(problem) })
    } finally {
      this.#store.set({ starting: false })
    }
  }

  /** End the session for everybody. */
  async stop(): Promise<void> {
    const { session } = this.#store.state
    this.#leave()
    if (session === null) return
    await server.endSession(session).catch((error: unknown) => {
      if (!(error instanceof ServerError && error.status === 404)) toast((error as Error).message)
    })
    await this.refresh()
  }

  async switch(): Promise<void> {
    await this.stop()
    await this.start()
  }

  retry(): void {
    const { phase, session, source, camera } = this.#store.state
    this.#store.set({ trouble: null })
    if (phase.name === 'waiting') this.#link?.retry()
    else if (session === null) void this.start()
    else if (source === 'browser' && camera) this.#follow()
  }

  change(settings: Partial<Settings>): void {
    const now = { ...this.#store.state.settings, ...settings }
    this.#store.set({ settings: now })
    const { background, ...plain } = settings
    this.#link?.control({ ...plain, ...(background && { background: serverBackground(background) }) })
  }

  /** Look at the avatar from another side: radians round the person. */
  turn(yaw: number): void {
    this.#link?.control({ yaw })
  }

  calibrate(): void {
    this.#link?.control({ calibrate: true })
  }

  #join(session: string): void {
    const { server: known, source, camera } = this.#store.state
    history.replaceState(null, '', `#session=${encodeURIComponent(session)}`)
    this.#store.set({ session, sessionState: null })
    this.#link = new Link(
      {
        session,
        role: 'drive',
        video: this.#eyes.video,
        iceServers: known?.ice_servers ?? [],
        camera: source === 'webcam' ? (camera?.getVideoTracks()[0] ?? null) : null,
        captureAge: (stampMs, now) => this.#captureAge(stampMs, now),
      },
      {
        onPhase: (phase) => this.#onPhase(phase),
        onState: (sessionState) => {
          const { framing, mirror, quality, probe } = sessionState
          const { settings } = this.#store.state
          this.#store.set({ sessionState, settings: { ...settings, framing, mirror, quality, probe } })
        },
        onStats: (stats) => this.#eyes.onStats(stats),
        onNotice: toast,
      },
    )
    this.#link.start()
    if (source === 'browser' && camera) this.#follow()
    if (source === 'webcam' && camera) this.#readCodes()
  }

  #onPhase(phase: Phase): void {
    // the first break is mended unsaid; after that the reason stays in sight until there is a picture again
    const problem = 'problem' in phase && phase.attempt > 1 ? phase.problem : undefined
    this.#store.set({ phase, trouble: problem ? troubleWithConnection(problem) : null })
    if (phase.name !== 'live') this.#eyes.onStats(null)
    if (phase.name === 'ended') {
      this.#leave()
      toast(phase.reason || 'The session has ended.')
    }
  }

  #leave(): void {
    this.#link?.stop()
    this.#link = null
    this.#releaseCamera()
    history.replaceState(null, '', location.pathname + location.search)
    this.#store.set({ session: null, sessionState: null, phase: { name: 'off' } })
    this.#eyes.onStats(null)
  }

  /** Whether the camera is there, or not needed; says what is wrong otherwise. */
  async #needCamera(source: Source): Promise<boolean> {
    if (source !== 'browser' && source !== 'webcam') return true
    try {
      const camera = await openCamera()
      this.#eyes.self.srcObject = camera
      camera.getVideoTracks()[0].onended = () => {
        toast('The camera was taken away.')
        this.#releaseCamera()
      }
      this.#store.set({ camera })
      return true
    } catch (error) {
      const { fault, message } = error as CameraError
      this.#store.set({ trouble: troubleWithCamera(fault ?? 'other', message, new URL(location.href)) })
      return false
    }
  }

  #releaseCamera(): void {
    this.#tracking?.close()
    this.#tracking = null
    this.#stopCodes()
    closeCamera(this.#store.state.camera)
    this.#eyes.self.srcObject = null
    this.#store.set({ camera: null, tracking: 'off' })
  }

  #follow(): void {
    this.#tracking?.close()
    this.#store.set({ tracking: 'loading' })
    this.#tracking = new Tracking(this.#eyes.self, {
      onReady: () => this.#store.set({ tracking: 'on' }),
      onSample: (sample) => {
        this.#link?.sendSample(encodeLandmarks(sample))
        this.#eyes.onSample(sample)
      },
      onFailed: (message) => this.#store.set({ tracking: 'off', trouble: troubleWithTracking(message) }),
    })
  }

  /** A test camera draws time codes; the server hands its stamps back. */
  #readCodes(): void {
    const reader = new CornerReader()
    this.#stopCodes = eachFrame(this.#eyes.self, ({ captureTime }) => {
      const code = this.#store.state.settings.probe ? reader.read(this.#eyes.self) : null
      if (!code) return
      const shownMs = captureTime === undefined ? nowMs() : performance.timeOrigin + captureTime
      if (this.#shownAtMs.size > 200) this.#shownAtMs.clear()
      this.#shownAtMs.set(code.drawnMs, shownMs)
    })
  }

  #captureAge(stampMs: number, now: number): number | null {
    if (this.#store.state.source === 'browser') return elapsedMs(now, stampMs)
    const shownMs = this.#shownAtMs.get(stampMs)
    return shownMs === undefined ? null : now - shownMs
  }
}
