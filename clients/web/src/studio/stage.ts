/** The avatar and all that lies over it. */
import { Compositor } from '../live/compositor'
import type { LiveStats } from '../live/link'
import { formatBitrate } from '../live/stats'
import type { LandmarkSample } from '../wire/landmark_sample'
import { Art } from './art'
import type { Conductor } from './conductor'
import { button, byId, region } from './dom'
import type { SceneSource } from './scene'
import { cameraUses, statusOf, type Background, type Store } from './state'

const BLUR_PX = 24
const DRAG_STEP_MS = 40

export class Stage {
  readonly video = byId('video', HTMLVideoElement)
  readonly self = byId('self-video', HTMLVideoElement)
  readonly source: SceneSource = {
    picture: () => (this.stacked ? this.#canvas : this.video),
    behind: () => this.#behind(),
  }
  #store: Store
  #canvas = byId('composite', HTMLCanvasElement)
  #points = byId('self-points', HTMLCanvasElement)
  #element = region('stage')
  #backdrop = region('backdrop')
  #art = new Art(byId('art', HTMLCanvasElement))
  #image = new Image()
  #pen = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', {
    willReadFrequently: true,
  })
  #wasLive = false
  #counting: ReturnType<typeof setInterval> | undefined

  constructor(store: Store) {
    this.#store = store
    new Compositor(
      this.video,
      this.#canvas,
      () => store.state.sessionState,
      (stacked) => {
        this.#element.toggleAttribute('data-stacked', stacked)
        this.#canvas.hidden = !stacked
      },
    )
  }

  get stacked(): boolean {
    return this.#element.hasAttribute('data-stacked')
  }

  mount(conductor: Conductor): void {
    this.#turnByDragging(conductor)
    const trouble = region('trouble')
    const welcome = region('welcome')
    const progress = region('progress')
    const bar = byId('progress-bar', HTMLProgressElement)
    const connecting = region('connecting')
    const status = region('status')
    const caption = region('self-caption')
    button('trouble-retry').onclick = () => conductor.retry()
    button('trouble-close').onclick = () => this.#store.set({ trouble: null })

    this.#store.onChange((state, before) => {
      const { phase, settings, camera, tracking, casting } = state
      // what is being made for this page; or, where there is nobody yet, for anybody
      const job = state.job ?? (state.server?.avatars.length === 0 ? (state.server.jobs[0] ?? null) : null)
      const live = phase.name === 'live'
      const { text, tone } = statusOf(state)
      status.textContent = text
      status.dataset.tone = tone

      if (live || state.session === null) this.#wasLive = live
      const shown = this.#wasLive // the last picture stays while the connection is mended
      this.#element.toggleAttribute('data-live', shown)
      this.#element.dataset.framing = settings.framing
      const { width = 3, height = 4 } = state.sessionState ?? {}
      this.#element.style.setProperty('--aspect', String(width / height))
      if (state.session !== null && before.session === null)
        this.#element.scrollIntoView({ block: 'center', behavior: 'smooth' })
      this.#element.toggleAttribute('data-dim', state.trouble !== null || (shown && !live))
      this.#art.shown = !shown
      this.#art.goal = job ? 0.08 + 0.92 * job.fraction : 1
      connecting.hidden = live || (phase.name === 'off' && !casting) || state.trouble !== null
      welcome.hidden = shown || job !== null || state.trouble !== null || !connecting.hidden
      connecting.textContent = phase.name === 'waiting' ? 'Connection lost, trying again…' : `${text}…`

      progress.hidden = job === null || state.trouble !== null
      if (job) {
        region('progress-stage').textContent = job.stage
        region('progress-message').textContent = job.message || job.name || ''
        bar.value = job.fraction
      }
      trouble.hidden = state.trouble === null
      if (state.trouble && state.trouble !== before.trouble) {
        region('trouble-title').textContent = state.trouble.title
        region('trouble-text').textContent = state.trouble.text
        region('trouble-detail').textContent = state.trouble.detail ?? ''
        region('trouble-steps').replaceChildren(
          ...state.trouble.steps.map((step) => Object.assign(document.createElement('li'), { textContent: step })),
        )
      }
      region('self').hidden = camera === null
      caption.textContent = cameraUses(state.source, state.server).includes('webcam')
        ? 'Goes to the server'
        : tracking === 'loading'
          ? 'Loading tracking…'
          : 'Stays on this device'
      if (settings.background !== before.settings.background || state.avatar !== before.avatar || state === before) {
        this.#showBackground(settings.background)
      }
    })
  }

  showStats(stats: LiveStats | null): void {
    const line = region('stats')
    line.hidden = stats === null
    if (!stats) return
    this.#matchBackdrop()
    const latency = stats.glassToGlassMs ?? stats.drawToDisplayMs ?? stats.pathMs
    const kind =
      stats.glassToGlassMs !== null
        ? 'from your camera to this screen, measured'
        : stats.drawToDisplayMs !== null
          ? 'from the server’s drawing to this screen, measured'
          : 'network, buffer and decoder, estimated; press T to measure all of it'
    const measured = stats.glassToGlassMs ?? stats.drawToDisplayMs
    const height = this.stacked ? stats.height / 2 : stats.height
    const entries: [value: string, unit: string, title: string][] = [
      [stats.fps.toFixed(0), 'fps', 'pictures a second'],
      ...(latency === null
        ? []
        : [
            [`${measured === null ? '≈ ' : ''}${latency.toFixed(0)}`, 'ms', `latency: ${kind}`] as [
              string,
              string,
              string,
            ],
          ]),
      [...(formatBitrate(stats.bitrateBps).split(' ') as [string, string]), 'bit rate'],
      [`${stats.width}×${height}`, '', 'size of the picture'],
      [String(stats.dropped), 'dropped', 'pictures that came too late, in the last second'],
    ]
    line.replaceChildren(
      ...entries.map(([value, unit, title]) => {
        const entry = document.createElement('span')
        entry.title = title
        entry.append(Object.assign(document.createElement('b'), { textContent: value }), ` ${unit}`)
        return entry
      }),
    )
  }

  /** Draw what goes out over the camera's picture: all that leaves this device. */
  showSample({ body, leftHand, rightHand, width, height }: LandmarkSample): void {
    const canvas = this.#points
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height })
    const context = canvas.getContext('2d')
    if (!context) return
    context.clearRect(0, 0, width, height)
    const draw = (points: Float32Array, radius: number, colour: string, seen: (i: number) => boolean) => {
      context.fillStyle = colour
      for (let i = 0; i < points.length / 2; i++) {
        if (!seen(i)) continue
        context.beginPath()
        context.arc(points[2 * i] * width, points[2 * i + 1] * height, radius, 0, 2 * Math.PI)
        context.fill()
      }
    }
    if (body) draw(body.image, width / 90, '#ffb27d', (i) => body.visibility[i] > 0.5)
    for (const hand of [leftHand, rightHand]) if (hand) draw(hand.image, width / 150, '#c58bff', () => true)
  }

  /** Count down on the stage, then act. */
  countDown(seconds: number, says: string, then: () => void): void {
    const element = region('countdown')
    clearInterval(this.#counting)
    const show = () => {
      element.hidden = seconds === 0
      element.replaceChildren(Object.assign(document.createElement('b'), { textContent: String(seconds) }), says)
    }
    show()
    this.#counting = setInterval(() => {
      seconds -= 1
      show()
      if (seconds > 0) return
      clearInterval(this.#counting)
      then()
    }, 1000)
  }

  /** Dragging across the stage goes half round the person; a double click goes back to the face. */
  #turnByDragging(conductor: Conductor): void {
    const stage = this.#element
    const isPicture = (target: EventTarget | null) =>
      target === this.video || target === this.#canvas || target === this.#backdrop
    let from: { x: number; yaw: number } | null = null
    let sentMs = 0
    stage.onpointerdown = (event) => {
      const { sessionState, phase } = this.#store.state
      if (phase.name !== 'live' || !sessionState || !isPicture(event.target)) return
      from = { x: event.clientX, yaw: sessionState.yaw }
      stage.setPointerCapture(event.pointerId)
    }
    stage.onpointermove = (event) => {
      if (!from || event.timeStamp - sentMs < DRAG_STEP_MS) return
      sentMs = event.timeStamp
      const yaw = from.yaw - (Math.PI * (event.clientX - from.x)) / stage.clientWidth
      conductor.control({ yaw: Math.atan2(Math.sin(yaw), Math.cos(yaw)) })
    }
    stage.onpointerup = stage.onpointercancel = () => (from = null)
    stage.ondblclick = ({ target }) => {
      if (isPicture(target) || target === stage) conductor.control({ yaw: 0 }) // captured pointers make it the stage's
    }
  }

  #showBackground(background: Background): void {
    this.#backdrop.dataset.kind = background.kind
    const url = background.kind === 'picture' ? background.url : background.kind === 'photo' ? this.#photoUrl() : null
    this.#backdrop.style.background = background.kind === 'colour' ? background.hex : ''
    this.#backdrop.style.backgroundImage = url ? `url("${CSS.escape(url).replaceAll('\\', '')}")` : ''
    if (url && this.#image.src !== url) this.#image.src = url
  }

  /** Video knows fewer colours than the page: take the one that it shows, so that no edge is seen beside it. */
  #matchBackdrop(): void {
    const { background } = this.#store.state.settings
    const pen = this.#pen
    if (background.kind !== 'colour' || this.stacked || !pen) return
    pen.drawImage(this.video, this.video.videoWidth - 12, 4, 8, 8, 0, 0, 1, 1)
    const [red, green, blue] = pen.getImageData(0, 0, 1, 1).data
    const wanted = [1, 3, 5].map((at) => parseInt(background.hex.slice(at, at + 2), 16))
    const off = Math.max(...[red, green, blue].map((value, i) => Math.abs(value - wanted[i])))
    if (off < 8) this.#backdrop.style.background = `rgb(${red} ${green} ${blue})`
  }

  #behind(): { image: HTMLImageElement; blurPx: number } | null {
    const { kind } = this.#store.state.settings.background
    if (!this.stacked || (kind !== 'picture' && kind !== 'photo')) return null
    return { image: this.#image, blurPx: kind === 'photo' ? BLUR_PX : 0 }
  }

  #photoUrl(): string | null {
    const { server, avatar } = this.#store.state
    return server?.avatars.find(({ id }) => id === avatar)?.backdrop ?? null
  }
}
