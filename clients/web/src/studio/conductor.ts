/** What the studio does: makes avatars, keeps a session on the stage, opens the camera and follows it. */
import { Link, type LiveStats } from '../live/link'
import type { Phase } from '../live/phase'
import { elapsedMs } from '../live/probe'
import { CameraError, closeCamera, openCamera } from '../tracking/camera'
import { Tracking } from '../tracking/tracking'
import { encodeLandmarks, type LandmarkSample } from '../wire/landmark_sample'
import { followJob, server, ServerError, type Cast, type Control, type Recording, type Source } from '../wire/messages'
import {
  troubleWithCamera,
  troubleWithConnection,
  troubleWithPhoto,
  troubleWithTracking,
  type Trouble,
} from './help_texts'
import { cameraUses, needsCamera, pictureSize, serverBackground, type Settings, type Store } from './state'
import { byId, toast } from './dom'
import { CameraStamps } from './stamps'

const LOOK_EVERY_MS = 4000
const LOOK_SOON_MS = 700
/** A session that ends again so soon is not started once more unasked. */
const PATIENCE_MS = 10_000

export interface Eyes {
  /** Where the avatar is shown. */
  video: HTMLVideoElement
  /** Where the camera is shown. */
  self: HTMLVideoElement
  onStats: (stats: LiveStats | null) => void
  onSample: (sample: LandmarkSample) => void
}

const choosePhoto = () => byId('photo', HTMLInputElement).click()

type Wish = Partial<{ avatar: string; source: Source; replay: string; rig: string }>

export class Conductor {
  #store: Store
  #eyes: Eyes
  #link: Link | null = null
  #tracking: Tracking | null = null
  #stamps = new CameraStamps()
  /** Changes are made one after the other. */
  #turn: Promise<void> = Promise.resolve()
  #startedMs = -Infinity
  /** What "Try again" does. */
  #again: () => void = () => {}

  constructor(store: Store, eyes: Eyes) {
    this.#store = store
    this.#eyes = eyes
  }

  /** Put an avatar on the stage at once: the session of this page's address, or a new one that nobody drives. */
  async begin(): Promise<void> {
    await this.refresh()
    const id = new URLSearchParams(location.hash.slice(1)).get('session')
    const running = this.#store.state.server?.sessions.find((session) => session.id === id)
    if (running) {
      this.#store.set({ avatar: running.avatar, source: running.source })
      const trouble = await this.#openCameraFor(running.source)
      this.#join(running.id)
      if (trouble) this.#fail(trouble, () => this.cast({ source: running.source }))
    }
    const look = async () => {
      await this.refresh()
      await this.#appear()
      const { server: known, serverDown } = this.#store.state
      setTimeout(() => void look(), serverDown || known?.jobs.length ? LOOK_SOON_MS : LOOK_EVERY_MS)
    }
    void look()
  }

  /** Ask the server what there is. */
  async refresh(): Promise<void> {
    try {
      const known = await server.state()
      const { avatar, replay, session, serverDown, trouble } = this.#store.state
      const stays = session !== null || known.avatars.some(({ id }) => id === avatar)
      this.#store.set({
        server: known,
        serverDown: false,
        trouble: serverDown ? null : trouble, // it is back
        avatar: stays ? avatar : (known.avatars[0]?.id ?? null),
        replay: replay !== null && known.replays.includes(replay) ? replay : (known.replays[0] ?? null),
      })
      if (serverDown) this.#link?.retry() // sooner than its own patience
    } catch (error) {
      if (error instanceof ServerError && [401, 403].includes(error.status)) {
        this.#store.set({ serverDown: false })
        return this.#fail(troubleWithConnection({ code: 'refused', reason: error.code, message: error.message }), () =>
          this.refresh(),
        )
      }
      this.#store.set({ serverDown: true })
      this.#startedMs = -Infinity // a session that went with it was not at fault
    }
  }

  /** Make an avatar of a photo, and show it. */
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
      this.#store.set({ job: null })
      await this.refresh()
      if (job.avatar) this.cast({ avatar: job.avatar })
      else this.#fail(troubleWithPhoto(job.message, job.warnings), choosePhoto)
    } catch (error) {
      this.#store.set({ job: null })
      this.#fail(troubleWithPhoto((error as Error).message, []), choosePhoto)
    }
  }

  async remove(avatar: string): Promise<void> {
    const { server: known, avatar: shown } = this.#store.state
    const other = known?.avatars.find(({ id }) => id !== avatar)
    if (avatar === shown && other) this.cast({ avatar: other.id })
    await this.#turn
    await this.#attempt(() => server.deleteAvatar(avatar))
    await this.refresh()
  }

  /** Show somebody else, or let something else move them. Viewers stay, and what fails changes nothing. */
  cast(wish: Wish): void {
    const { avatar, source, replay, rig } = this.#store.state
    this.#store.set({ ...wish, casting: true, trouble: null })
    this.#turn = this.#turn.then(async () => {
      const trouble = await this.#recast()
      if (trouble) {
        this.#store.set({ avatar, source, replay, rig })
        this.#fail(trouble, () => this.cast(wish))
      }
      if (!needsCamera(this.#store.state.source, this.#store.state.server)) this.#releaseCamera()
      this.#store.remember()
      this.#store.set({ casting: false })
    })
  }

  retry(): void {
    this.#store.set({ trouble: null })
    this.#again()
  }

  change(settings: Partial<Settings>): void {
    this.#store.set({ settings: { ...this.#store.state.settings, ...settings } })
    this.#store.remember()
    const { background, ...plain } = settings
    this.#link?.control({ ...plain, ...(background && { background: serverBackground(background) }) })
  }

  /** Change what only the session remembers; its state says when that has happened. */
  control(change: Pick<Control, 'yaw' | 'speed' | 'loop' | 'seek_s' | 'vmc'>): void {
    this.#link?.control(change)
  }

  calibrate(): void {
    this.#link?.control({ calibrate: true })
  }

  /** Let everybody who watches hear this microphone; null: nobody any more. */
  speak(microphone: MediaStream | null): void {
    this.#store.set({ microphone })
    this.#link?.setMicrophone(microphone?.getAudioTracks()[0] ?? null)
    this.#link?.control({ audio: microphone !== null })
  }

  async startRecording(): Promise<void> {
    const { session } = this.#store.state
    if (session !== null) await this.#attempt(() => server.startRecording(session))
  }

  /** The film, once it is complete. */
  async stopRecording(): Promise<Recording | undefined> {
    const { session } = this.#store.state
    if (session === null) return
    const film = await this.#attempt(() => server.stopRecording(session))
    await this.refresh()
    return film
  }

  async removeRecording(recording: Recording): Promise<void> {
    await this.#attempt(() => server.deleteRecording(recording))
    await this.refresh()
  }

  /** Say what is in the way, and what trying again means. */
  #fail(trouble: Trouble, again: () => void): void {
    this.#again = again
    this.#store.set({ trouble })
  }

  async #attempt<T>(act: () => Promise<T>): Promise<T | undefined> {
    try {
      return await act()
    } catch (error) {
      toast((error as Error).message)
      return undefined
    }
  }

  /** Start a session if there is none, can be one, and none has just ended. */
  async #appear(): Promise<void> {
    const { session, avatar, casting, trouble, serverDown } = this.#store.state
    const soon = performance.now() - this.#startedMs < PATIENCE_MS
    if (session !== null || avatar === null || casting || trouble || serverDown || soon) return
    this.cast({})
    await this.#turn
  }

  /** Make the session what is wanted, or say what is in the way. */
  async #recast(): Promise<Trouble | null> {
    const { source } = this.#store.state
    const trouble = await this.#openCameraFor(source)
    if (trouble) return trouble
    const { avatar, replay, rig, session } = this.#store.state
    if (avatar === null) return null
    const cast: Cast = {
      avatar,
      source,
      ...(source === 'replay' && replay !== null && { replay }),
      ...(source === 'mqtt' && rig !== null && { rig }),
    }
    try {
      if (session === null) await this.#start(cast)
      else {
        await server.recast(session, cast)
        this.#attachCamera()
      }
      return null
    } catch (error) {
      const { message } = error as Error
      const problem =
        error instanceof ServerError && error.code !== 'unreachable'
          ? { code: 'refused' as const, reason: error.code, message }
          : { code: 'unreachable' as const }
      this.#store.set({ serverDown: problem.code === 'unreachable' })
      return troubleWithConnection(problem)
    }
  }

  async #start(cast: Cast): Promise<void> {
    this.#startedMs = performance.now()
    const { background, mirror, quality, probe } = this.#store.state.settings
    const stage = this.#eyes.video.parentElement
    const { id } = await server.startSession({
      ...cast,
      ...pictureSize(stage?.clientWidth ?? 0, stage?.clientHeight ?? 0),
      ...{ mirror, quality, probe, audio: this.#store.state.microphone !== null },
      background: serverBackground(background),
    })
    this.#join(id)
  }

  #join(session: string): void {
    history.replaceState(null, '', `#session=${encodeURIComponent(session)}`)
    this.#store.set({ session, sessionState: null })
    this.#link = new Link(
      {
        session,
        role: 'drive',
        video: this.#eyes.video,
        captureAge: (stampMs, now) =>
          this.#store.state.source === 'browser' ? elapsedMs(now, stampMs) : this.#stamps.age(stampMs, now),
      },
      {
        onPhase: (phase) => this.#onPhase(phase),
        onState: (sessionState) => {
          const { framing, mirror, quality, probe, avatar, source } = sessionState
          const { settings, casting, replay, rig } = this.#store.state
          this.#store.set({
            sessionState,
            settings: { ...settings, framing, mirror, quality, probe },
            // another page may have changed it
            ...(!casting && { avatar, source, replay: sessionState.replay ?? replay, rig: sessionState.rig ?? rig }),
          })
          if (!casting && !needsCamera(source, this.#store.state.server)) this.#releaseCamera()
        },
        onStats: (stats) => this.#eyes.onStats(stats),
        onNotice: toast,
      },
    )
    this.#attachCamera()
    this.#link.setMicrophone(this.#store.state.microphone?.getAudioTracks()[0] ?? null)
    this.#link.start()
  }

  #onPhase(phase: Phase): void {
    // the first break is mended unsaid; after that the reason stays in sight until there is a picture again
    const problem = 'problem' in phase && phase.attempt > 1 ? phase.problem : undefined
    const { trouble, phase: was } = this.#store.state
    const before = was.name
    this.#store.set({ phase, trouble: phase.name === 'live' && before !== 'live' ? null : trouble })
    if (problem) this.#fail(troubleWithConnection(problem), () => this.#link?.retry())
    if (phase.name !== 'live') this.#eyes.onStats(null)
    if (phase.name === 'ended') void this.#replace(phase.reason, phase.code)
  }

  /** Another session in place of one that has ended: as it was, unless it was itself at fault. */
  async #replace(reason: string, code?: string): Promise<void> {
    this.#link?.stop()
    this.#link = null
    history.replaceState(null, '', location.pathname + location.search)
    const { source } = this.#store.state
    const gone = code === 'unknown_session' // the server was restarted
    this.#store.set({
      session: null,
      sessionState: null,
      phase: { name: 'off' },
      ...(gone ? { trouble: null } : { source: 'idle' }),
    })
    this.#eyes.onStats(null)
    if (!gone) toast(reason || 'The session has ended.')
    if (!needsCamera(this.#store.state.source, this.#store.state.server)) this.#releaseCamera()
    await this.refresh()
    // the server itself went: when it is back, all is to be as it was
    if (this.#store.state.serverDown) this.#store.set({ source })
    await this.#appear()
  }

  /** Open the camera if it is needed; what is wrong with it, if anything. */
  async #openCameraFor(source: Source): Promise<Trouble | null> {
    if (!needsCamera(source, this.#store.state.server) || this.#store.state.camera !== null) return null
    try {
      const camera = await openCamera()
      this.#eyes.self.srcObject = camera
      camera.getVideoTracks()[0].onended = () => {
        toast('The camera was taken away.')
        this.cast({ source: 'idle' })
      }
      this.#store.set({ camera })
      return null
    } catch (error) {
      const { fault, message } = error as CameraError
      if (source === 'merged') {
        toast(`The camera's part stays at rest: ${message}`)
        return null // the other drivers need none
      }
      return troubleWithCamera(fault ?? 'other', message, new URL(location.href))
    }
  }

  /** Use the camera as the source asks: its points, its picture, or not at all. */
  #attachCamera(): void {
    const { source, camera, server } = this.#store.state
    const uses = cameraUses(source, server)
    const track = camera?.getVideoTracks()[0] ?? null
    this.#link?.setCamera(uses.includes('webcam') ? track : null)
    this.#stamps.stop()
    if (uses.includes('webcam') && camera) this.#stamps.read(this.#eyes.self, () => this.#store.state.settings.probe)
    if (uses.includes('browser') && camera) {
      if (!this.#tracking) this.#follow()
    } else this.#unfollow()
  }

  #releaseCamera(): void {
    if (this.#store.state.camera === null) return
    this.#unfollow()
    this.#stamps.stop()
    this.#link?.setCamera(null)
    closeCamera(this.#store.state.camera)
    this.#eyes.self.srcObject = null
    this.#store.set({ camera: null })
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
      onFailed: (message) => {
        this.#store.set({ tracking: 'off' })
        this.#fail(troubleWithTracking(message), () => this.#follow())
      },
    })
  }

  #unfollow(): void {
    this.#tracking?.close()
    this.#tracking = null
    if (this.#store.state.tracking !== 'off') this.#store.set({ tracking: 'off' })
  }
}
