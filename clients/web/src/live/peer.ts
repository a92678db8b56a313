/**
 * One WebRTC connection: the avatar's video comes in, landmarks or the camera's video go out.
 *
 * The offer's first video section is the avatar (recvonly); a second one, of those who drive, is for the camera
 * (sendonly), whether there is one already or only later. So it is with sound: recvonly for those who listen, sendonly
 * for the microphone of those who drive. The page opens both data channels: `pose` for samples (no order, no retransmission: newest wins) and `control` for JSON.
 */
import type { ClientMessage } from '../wire/messages'

export type Codec = 'h264' | 'vp8'

export interface PeerOptions {
  /** Undefined: there will never be one. */
  camera: MediaStreamTrack | null | undefined
  /** The same. */
  microphone: MediaStreamTrack | null | undefined
  /** Whether to listen. */
  sound: boolean
  codec: Codec | null
  /** Go by a TURN server even where there is a shorter way. */
  relayOnly?: boolean
}

export interface PeerHandlers {
  onVideo: (stream: MediaStream) => void
  onSound: (stream: MediaStream) => void
  /** An offer or candidate for the server. */
  onSignal: (message: ClientMessage) => void
  onFailed: () => void
  /** A ping came back: our times of sending and receiving, and the server's in between. */
  onPong: (sentMs: number, serverMs: number) => void
}

/** A sample waits for the next one while more than this is queued: an old sample is worth nothing. */
const MOST_BUFFERED_BYTES = 4096

export class Peer {
  readonly connection: RTCPeerConnection
  /** Kinds of ICE candidates found, for people who look for a fault. */
  readonly candidates = new Set<string>()
  #camera: RTCRtpSender | null = null
  #microphone: RTCRtpSender | null = null
  #pose: RTCDataChannel
  #control: RTCDataChannel
  #early: (RTCIceCandidateInit | null)[] = []
  #handlers: PeerHandlers
  #closed = false

  constructor({ camera, microphone, sound, codec, relayOnly }: PeerOptions, handlers: PeerHandlers) {
    this.#handlers = handlers
    const connection = new RTCPeerConnection({
      iceTransportPolicy: relayOnly ? 'relay' : 'all',
      bundlePolicy: 'max-bundle',
    })
    this.connection = connection
    const avatar = connection.addTransceiver('video', { direction: 'recvonly' })
    if (codec) avatar.setCodecPreferences(codecsFirst(codec))
    if (camera !== undefined) {
      this.#camera = connection.addTransceiver(camera ?? 'video', { direction: 'sendonly' }).sender
    }
    const speech = sound ? connection.addTransceiver('audio', { direction: 'recvonly' }) : null
    if (microphone !== undefined) {
      this.#microphone = connection.addTransceiver(microphone ?? 'audio', { direction: 'sendonly' }).sender
    }
    this.#pose = connection.createDataChannel('pose', { ordered: false, maxRetransmits: 0 })
    this.#control = connection.createDataChannel('control')
    this.#control.onmessage = ({ data }) => this.#onControl(data)
    connection.ontrack = ({ track, transceiver }) => {
      // apart, as the server's streams are: whoever plays them as one would hold the pictures back for the sound
      if (transceiver === avatar) handlers.onVideo(new MediaStream([track]))
      if (transceiver === speech) handlers.onSound(new MediaStream([track]))
    }
    connection.onicecandidate = ({ candidate }) => {
      if (candidate?.type) this.candidates.add(`${candidate.type}/${candidate.protocol ?? '?'}`)
      handlers.onSignal({ type: 'candidate', candidate: candidate?.toJSON() ?? null })
    }
    connection.onconnectionstatechange = () => {
      if (connection.connectionState === 'failed' && !this.#closed) handlers.onFailed()
    }
  }

  /** Look for paths, by these servers too, and offer them. */
  async offer(iceServers: RTCIceServer[]): Promise<void> {
    this.connection.setConfiguration({ ...this.connection.getConfiguration(), iceServers })
    await this.connection.setLocalDescription()
    const sdp = this.connection.localDescription?.sdp
    if (sdp && !this.#closed) this.#handlers.onSignal({ type: 'offer', sdp })
  }

  async accept(sdp: string): Promise<void> {
    await this.connection.setRemoteDescription({ type: 'answer', sdp })
    for (const candidate of this.#early.splice(0)) await this.connection.addIceCandidate(candidate ?? undefined)
  }

  async addCandidate(candidate: RTCIceCandidateInit | null): Promise<void> {
    if (this.connection.remoteDescription) await this.connection.addIceCandidate(candidate ?? undefined)
    else this.#early.push(candidate)
  }

  /** Send another camera's video, or none. */
  async setCamera(camera: MediaStreamTrack | null): Promise<void> {
    await this.#camera?.replaceTrack(camera)
  }

  /** Send another microphone's sound, or none. */
  async setMicrophone(microphone: MediaStreamTrack | null): Promise<void> {
    await this.#microphone?.replaceTrack(microphone)
  }

  /** Whether the sample went out. */
  sendSample(sample: ArrayBuffer): boolean {
    if (this.#pose.readyState !== 'open' || this.#pose.bufferedAmount > MOST_BUFFERED_BYTES) return false
    this.#pose.send(sample)
    return true
  }

  ping(nowMs: number): void {
    if (this.#control.readyState === 'open') this.#control.send(JSON.stringify({ type: 'ping', t: nowMs }))
  }

  close(): void {
    this.#closed = true
    this.connection.close()
  }

  #onControl(data: unknown): void {
    if (typeof data !== 'string') return
    try {
      const { type, t, server_t } = JSON.parse(data) as Record<string, unknown>
      if (type === 'pong' && typeof t === 'number' && typeof server_t === 'number') this.#handlers.onPong(t, server_t)
    } catch {
      // not ours
    }
  }
}

function codecsFirst(codec: Codec): RTCRtpCodec[] {
  const codecs = RTCRtpReceiver.getCapabilities('video')?.codecs ?? []
  const isWanted = ({ mimeType }: RTCRtpCodec) => mimeType.toLowerCase() === `video/${codec}`
  return [...codecs.filter(isWanted), ...codecs.filter((other) => !isWanted(other))]
}
