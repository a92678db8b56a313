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
}

export interface FeedHandlers {
  /** `first` of a connection: what was known before may be another server's. */
  onScene: (scene: Scene, first: boolean) => void
  onPose: (pose: Pose) => void
  /** It will not come any more, and why. */
  onEnd: (reason: string) => void
}

const ACK_EVERY = 8
const MOST_TRIES = 5
/** Close codes from 4000 on are the server's word, and 1001 is the session's end; anything else is the network's. */
const isFinal = (code: number) => code >= 4000 || code === 1001

export class Feed {
  #url: string
  #handlers: FeedHandlers
  #socket: WebSocket | null = null
  #tries = 0
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

  #open(): void {
    const socket = new WebSocket(this.#url)
    let received = 0
    let first = true
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
      received++
      if (received % ACK_EVERY === 0) socket.send(JSON.stringify({ type: 'ack', received }))
      const pose = parsePose(data)
      if (!pose) return
      this.#tries = 0
      this.#handlers.onPose(pose)
    }
    socket.onclose = ({ code }) => {
      if (this.#socket !== socket) return
      this.#socket = null
      if (isFinal(code) || ++this.#tries >= MOST_TRIES) {
        this.#handlers.onEnd(this.#reason || 'the server cannot be reached')
      } else {
        this.#timer = setTimeout(() => this.#open(), backoffMs(this.#tries))
      }
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
