/** A session whose avatar this page draws itself, from the poses that the server sends. */
import { parseAvatar } from './avatar_file'
import { Feed, type Scene } from './feed'
import { SplatStage } from './stage'

const SLOWEST_FPS = 20

export interface DrawnHandlers {
  /** The avatar is on the screen. */
  onShown: () => void
  /** It cannot be shown here, or no longer, and why; everything is closed by then. */
  onGiveUp: (reason: string) => void
}

export interface DrawnOptions {
  session: string
  /** Where the server asks for one, and no cookie says it. */
  token: string | null
  /** Nobody else draws on it. */
  canvas: HTMLCanvasElement
  /** Go on however slowly pictures are drawn. */
  patient: boolean
}

/** Draw until something is in the way. */
export function drawSession(
  { session, token, canvas, patient }: DrawnOptions,
  { onShown, onGiveUp }: DrawnHandlers,
): void {
  const address = (path: string) => {
    const url = new URL(path, location.href)
    if (token) url.searchParams.set('token', token)
    return url
  }
  let closed = false
  let shown = false
  let wanted = -1
  const giveUp = (reason: string) => {
    if (closed) return
    closed = true
    feed?.close()
    stage?.close()
    onGiveUp(reason)
  }

  let stage: SplatStage | null = null
  let feed: Feed | null = null
  try {
    stage = new SplatStage(canvas, (rate) => {
      if (!patient && rate < SLOWEST_FPS) giveUp(`this device draws only ${rate.toFixed(0)} pictures a second`)
    })
  } catch (error) {
    queueMicrotask(() => giveUp(`this browser gives no WebGL 2 (${error instanceof Error ? error.message : error})`))
    return
  }
  const there = stage
  canvas.addEventListener('webglcontextlost', () => giveUp('the graphics card was taken away'))

  const fetchAvatar = async ({ cast }: Scene) => {
    const response = await fetch(address(`/api/sessions/${encodeURIComponent(session)}/avatar`))
    if (!response.ok) {
      const body = (await response.json().catch(() => null)) as { error?: { message?: string } } | null
      throw new Error(body?.error?.message ?? `the server answered ${response.status}`)
    }
    const file = parseAvatar(await response.arrayBuffer())
    if (closed || cast !== wanted) return
    there.put(file, cast)
    if (!shown) onShown()
    shown = true
  }

  const socket = address(`/v1/poses/${encodeURIComponent(session)}`)
  socket.protocol = socket.protocol === 'https:' ? 'wss:' : 'ws:'
  feed = new Feed(socket.href, {
    onScene: (scene, first) => {
      there.show(scene)
      if (scene.cast === wanted && !first) return
      wanted = scene.cast
      fetchAvatar(scene).catch((error: unknown) => {
        giveUp(`the avatar did not arrive: ${error instanceof Error ? error.message : error}`)
      })
    },
    onPose: (pose) => there.buffer.push(pose, performance.now()),
    onEnd: giveUp,
  })
}
