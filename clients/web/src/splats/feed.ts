/** The websocket that brings scenes and poses; it comes back by itself, and says when there is no point in that. */
import { backoffMs } from '../live/backoff'
import { parsePose, type Pose } from './pose_packet'

export interface Scene {
  type: 'scene'
  /** Which of the session's avatars; poses say it too. */
  cast: number
  /** The picture, in pixels. */
  width: number
  height: number
  focal_px: [number, number]
  centre_px: [number, number]
  T_camera_world: number[][]
  mirror: boolean
  /** Six hex digits, or 'transparent'. */
  background: string
  framing: 'full' | 'half' | 'head'
}

export interface FeedHandlers {
  /** `first` of a connection: what was known before may be another server's. */
  onScene: (scene: Scene, first: boolean) => void
  onPose: (pose: Pose) => void
  /** What came before comes no more at the moment; `reason` where the session has ended, which may begin again. */
  onBreak: (reason: string | null) => void
  /** It will not come, and why. */
  onEnd: (reason: string) => void
}

const ACK_EVERY = 8
const MOST_TRIES = 5
const COME_BACK_MS = 5000
const ENDED = 1001
const UNKNOWN_SESSION = 4404
/** Close codes from 4000 on are the server's word, and 1001 is the session's end; anything else is the network's. */
const OWN_CODES = 4000

export class Feed {
  #url: string
  #handlers: FeedHandlers
  #socket: WebSocket | null = null
  #tries = 0
  #received = 0
  #shown = false
  #held = false
  #reason = ''
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(url: string, handlers: FeedHandlers) {
    this.#url = url
    this.#handlers = handlers
    this.#open()
  }

  close(): void {
    clearTimeout(this.#timer)
    const socket = this.#socket
    this.#socket = null
    socket?.close()
  }

  /** Nobody looks: say no more what has come, so that the server soon sends nothing; or somebody looks again. */
  hold(held: boolean): void {
    this.#held = held
    if (!held && this.#received > 0) this.#acknowledge()
  }

  #acknowledge(): void {
    if (this.#socket?.readyState !== WebSocket.OPEN) return
    this.#socket.send(JSON.stringify({ type: 'ack', received: this.#received }))
  }

  #open(): void {
    const socket = new WebSocket(this.#url)
    let first = true
    this.#received = 0
    this.#reason = ''
    this.#socket = socket
    socket.binaryType = 'arraybuffer'
    socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => {
      if (this.#socket !== socket) return
      if (typeof data === 'string') {
        const message = parseMessage(data)
        if (message?.type === 'scene') {
          this.#handlers.onScene(message as Scene, first)
          first = false
        } else if (message?.type === 'error') this.#reason = message.message ?? ''
        return
      }
      this.#received++
      if (this.#received % ACK_EVERY === 0 && !this.#held) this.#acknowledge()
      const pose = parsePose(data)
      if (!pose) return
      this.#tries = 0
      this.#shown = true
      this.#handlers.onPose(pose)
    }
    socket.onclose = ({ code }) => {
      if (this.#socket !== socket) return
      this.#socket = null
      const gone = code === ENDED || code === UNKNOWN_SESSION
      const refused = code >= OWN_CODES && !gone
      this.#tries++
      // what was there once comes back, however long that takes
      if (refused || (!this.#shown && (gone || this.#tries >= MOST_TRIES))) {
        return this.#handlers.onEnd(this.#reason || 'the server cannot be reached')
      }
      this.#handlers.onBreak(gone ? this.#reason || 'This session has ended.' : null)
      this.#timer = setTimeout(() => this.#open(), gone ? COME_BACK_MS : backoffMs(this.#tries))
    }
  }
}

function parseMessage(text: string): { type?: string; message?: string } | null {
  try {
    return JSON.parse(text) as { type?: string; message?: string }
  } catch {
    return null
  }
}
