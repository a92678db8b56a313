/** The websocket of one session: messages of wire/messages.ts as JSON. */
import type { ClientMessage, ServerMessage } from '../wire/messages'

export type Role = 'drive' | 'view'

export interface SignallingHandlers {
  onMessage: (message: ServerMessage) => void
  onClosed: () => void
}

/** A message of the server; null for what this page does not know. */
export function parseServerMessage(text: string): ServerMessage | null {
  let message: unknown
  try {
    message = JSON.parse(text)
  } catch {
    return null
  }
  if (typeof message !== 'object' || message === null || !('type' in message)) return null
  const { type } = message
  const known = ['ice', 'answer', 'candidate', 'state', 'error', 'bye']
  return typeof type === 'string' && known.includes(type) ? (message as ServerMessage) : null
}

export interface Wishes {
  /** Stacked frames, whatever the session's background is. */
  alpha?: boolean
  codec?: 'h264' | 'vp8' | null
  /** Where the server asks for one, and no cookie says it. */
  token?: string | null
}

/** Where a session signals. */
export function signalUrl(page: URL, session: string, role: Role, { alpha, codec, token }: Wishes = {}): string {
  const url = new URL(`/v1/signal/${encodeURIComponent(session)}`, page)
  url.protocol = page.protocol === 'https:' ? 'wss:' : 'ws:'
  url.searchParams.set('role', role)
  if (alpha) url.searchParams.set('alpha', '1')
  if (codec) url.searchParams.set('codec', codec)
  if (token) url.searchParams.set('token', token)
  return url.href
}

export class Signalling {
  #socket: WebSocket
  #closed = false

  constructor(url: string, { onMessage, onClosed }: SignallingHandlers) {
    this.#socket = new WebSocket(url)
    this.#socket.onmessage = ({ data }) => {
      const message = typeof data === 'string' && !this.#closed ? parseServerMessage(data) : null
      if (message) onMessage(message)
    }
    this.#socket.onclose = () => {
      if (!this.#closed) onClosed()
    }
  }

  send(message: ClientMessage): void {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message))
  }

  close(): void {
    this.#closed = true
    this.#socket.close()
  }
}
