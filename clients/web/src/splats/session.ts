/** A session whose avatar this page draws itself, from the poses that the server sends. */
import type { Phase } from '../live/phase'
import { parseAvatar, type AvatarFile } from './avatar_file'
import { nextDetail } from './detail'
import { Feed, type Scene } from './feed'
import { SplatStage } from './stage'

/** A graphics card that is taken away again so soon is none to draw with. */
const LOST_AGAIN_MS = 10_000
/** A driver that starts anew needs a moment. */
const BUILD_AGAIN_MS = 300

export interface DrawnHandlers {
  /** `live` once the avatar is on the screen. */
  onPhase: (phase: Phase) => void
  /** It cannot be shown here, or no longer, and why; everything is closed by then. */
  onGiveUp: (reason: string) => void
}

export interface DrawnOptions {
  session: string
  /** Where the server asks for one, and no cookie says it. */
  token: string | null
  /** A canvas is put after it. */
  video: HTMLVideoElement
  /** Draw every pixel, however slow that is. */
  patient: boolean
}

/** Draw until something is in the way. */
export function drawSession(
  { session, token, video, patient }: DrawnOptions,
  { onPhase, onGiveUp }: DrawnHandlers,
): void {
  const address = (path: string) => {
    const url = new URL(path, location.href)
    if (token) url.searchParams.set('token', token)
    return url
  }
  let closed = false
  let wanted = -1
  let detail = 1
  let lostAtMs = -Infinity
  let scene: Scene | null = null
  let cast: { file: AvatarFile; cast: number } | null = null
  let stage: SplatStage | null = null
  let feed: Feed | null = null

  const onVisibility = () => feed?.hold(document.hidden)
  const giveUp = (reason: string) => {
    if (closed) return
    closed = true
    document.removeEventListener('visibilitychange', onVisibility)
    feed?.close()
    stage?.close()
    document.body.style.backgroundColor = ''
    onGiveUp(reason)
  }

  const onPace = (fps: number) => {
    if (patient) return
    const next = nextDetail(detail, fps)
    if (next === null) return giveUp(`this device draws only ${fps.toFixed(0)} pictures a second`)
    if (next !== detail) stage?.setDetail((detail = next))
  }
  const build = () => {
    if (closed) return
    if (document.hidden) return document.addEventListener('visibilitychange', build, { once: true })
    const canvas = Object.assign(document.createElement('canvas'), { ariaLabel: 'The avatar, live, drawn here' })
    canvas.id = 'splats'
    video.after(canvas)
    try {
      stage = new SplatStage(canvas, onPace)
    } catch (error) {
      canvas.remove()
      return giveUp(`this browser gives no WebGL 2 (${error instanceof Error ? error.message : error})`)
    }
    const there = stage
    canvas.addEventListener('webglcontextlost', () => there === stage && buildAgain())
    there.setDetail(detail)
    if (scene) there.show(scene)
    if (cast) there.put(cast.file, cast.cast)
  }
  /** Phones take graphics cards away from pages that nobody looks at. */
  const buildAgain = () => {
    stage?.close()
    stage = null
    const now = performance.now()
    if (now - lostAtMs < LOST_AGAIN_MS) return giveUp('the graphics card was taken away twice')
    lostAtMs = now
    setTimeout(build, BUILD_AGAIN_MS)
  }

  const fetchAvatar = async (of: number) => {
    const response = await fetch(address(`/api/sessions/${encodeURIComponent(session)}/avatar`))
    if (!response.ok) {
      const body = (await response.json().catch(() => null)) as { error?: { message?: string } } | null
      throw new Error(body?.error?.message ?? `the server answered ${response.status}`)
    }
    const file = parseAvatar(await response.arrayBuffer())
    if (closed || of !== wanted) return
    cast = { file, cast: of }
    stage?.put(file, of)
    onPhase({ name: 'live' })
  }

  onPhase({ name: 'connecting', attempt: 1 })
  build()
  if (closed) return
  document.addEventListener('visibilitychange', onVisibility)
  const socket = address(`/v1/poses/${encodeURIComponent(session)}`)
  socket.protocol = socket.protocol === 'https:' ? 'wss:' : 'ws:'
  feed = new Feed(socket.href, {
    onScene: (now, first) => {
      scene = now
      stage?.show(now)
      document.body.style.backgroundColor = now.background === 'transparent' ? '' : `#${now.background}`
      if (now.cast === wanted && !first) return
      wanted = now.cast
      fetchAvatar(now.cast).catch((error: unknown) => {
        giveUp(`the avatar did not arrive: ${error instanceof Error ? error.message : error}`)
      })
    },
    onPose: (pose) => stage?.buffer.push(pose, performance.now()),
    onBreak: (reason) => onPhase(reason === null ? { name: 'connecting', attempt: 1 } : { name: 'ended', reason }),
    onEnd: giveUp,
  })
  onVisibility()
}
