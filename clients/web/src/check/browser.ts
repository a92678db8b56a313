/** Checks of what this browser and this device can do by themselves. */
import { closeCamera, openCamera, cameraFault, type CameraError } from '../tracking/camera'
import { findRenderer } from '../tracking/graphics'
import { Tracking } from '../tracking/tracking'
import { troubleWithCamera, troubleWithTracking } from '../studio/help_texts'
import { fromTrouble, judgeDecoders, judgeRenderer, type Decoder, type Verdict } from './verdict'

const LOOPBACK_MS = 8000

const page = () => new URL(location.href)

export function checkSecurity(): Verdict {
  if (isSecureContext) return { tone: 'ok', text: `Camera and microphone may be used on ${location.origin}.` }
  return fromTrouble(troubleWithCamera('insecure', '', page()), 'warning')
}

/** Whether the browser would ask before it gives this. */
export async function wouldAsk(name: 'camera' | 'microphone'): Promise<boolean> {
  if (!isSecureContext) return false
  try {
    return (await navigator.permissions.query({ name: name as PermissionName })).state === 'prompt'
  } catch {
    return true // browsers that do not know the question ask
  }
}

export async function checkCamera(): Promise<Verdict> {
  try {
    const camera = await openCamera()
    const { width, height, frameRate } = camera.getVideoTracks()[0].getSettings()
    closeCamera(camera)
    return { tone: 'ok', text: `It opens: ${width}×${height}, ${Math.round(frameRate ?? 0)} pictures a second.` }
  } catch (error) {
    const { fault, message } = error as CameraError
    return fromTrouble(troubleWithCamera(fault ?? 'other', message, page()))
  }
}

export async function checkMicrophone(): Promise<Verdict> {
  if (!isSecureContext) return { tone: 'skipped', text: 'Only on a secure page.' }
  try {
    const sound = await navigator.mediaDevices.getUserMedia({ audio: true })
    const { label } = sound.getAudioTracks()[0]
    closeCamera(sound)
    return { tone: 'ok', text: 'It opens.', detail: label }
  } catch (error) {
    const { name, message } = error as DOMException
    const steps = {
      refused: ['Click the symbol beside the address and allow the microphone'],
      absent: ['Plug one in, if viewers are to hear you'],
      busy: ['Close other programs that use the microphone'],
    } as Record<string, string[]>
    return {
      tone: 'warning',
      text: 'It does not open: viewers could not hear you. Everything else works without.',
      steps: steps[cameraFault(name)] ?? [],
      detail: message,
    }
  }
}

export const checkWebgl = (): Verdict => judgeRenderer(findRenderer(document.createElement('canvas')))

export async function checkCodecs(): Promise<Verdict> {
  const wanted: [codec: Decoder['codec'], mime: string, contentType: string][] = [
    ['H.264', 'video/h264', 'video/h264;profile-level-id=42e01f;packetization-mode=1'],
    ['VP8', 'video/vp8', 'video/vp8'],
  ]
  const known = RTCRtpReceiver.getCapabilities('video')?.codecs ?? []
  const decoders = wanted.map(async ([codec, mime, contentType]) => ({
    codec,
    offered: known.some(({ mimeType }) => mimeType.toLowerCase() === mime),
    smooth: await decodesSmoothly(contentType),
  }))
  return judgeDecoders(await Promise.all(decoders))
}

async function decodesSmoothly(contentType: string): Promise<boolean | null> {
  try {
    const video = { contentType, width: 720, height: 960, bitrate: 2_000_000, framerate: 30 }
    const { supported, smooth } = await navigator.mediaCapabilities.decodingInfo({ type: 'webrtc', video })
    return supported ? smooth : null
  } catch {
    return null
  }
}

/** Two ends in this page, and a message there and back. */
export async function checkLoopback(): Promise<Verdict> {
  if (!('RTCPeerConnection' in window))
    return {
      tone: 'failed',
      text: 'This browser has no WebRTC, or an extension has taken it away.',
      steps: ['Switch off extensions that block WebRTC', 'Use a current Chrome, Edge, Firefox or Safari'],
    }
  const [here, there] = [new RTCPeerConnection(), new RTCPeerConnection()]
  try {
    const kinds = new Set<string>()
    for (const [one, other] of [
      [here, there],
      [there, here],
    ])
      one.onicecandidate = ({ candidate }) => {
        if (candidate?.type) kinds.add(`${candidate.type}/${candidate.protocol}`)
        void other.addIceCandidate(candidate ?? undefined).catch(() => {})
      }
    there.ondatachannel = ({ channel }) => (channel.onmessage = ({ data }) => channel.send(data as string))
    const channel = here.createDataChannel('echo')
    const echo = new Promise<number>((resolve, reject) => {
      let sentMs = 0
      channel.onopen = () => {
        sentMs = performance.now()
        channel.send('echo')
      }
      channel.onmessage = () => resolve(performance.now() - sentMs)
      setTimeout(() => reject(new Error([...kinds].join(', ') || 'no candidates')), LOOPBACK_MS)
    })
    await here.setLocalDescription()
    await there.setRemoteDescription(here.localDescription!)
    await there.setLocalDescription()
    await here.setRemoteDescription(there.localDescription!)
    return { tone: 'ok', text: `Connected in this page: ${(await echo).toFixed(1)} ms there and back.` }
  } catch (error) {
    return {
      tone: 'failed',
      text: 'Two ends in this very page do not find each other: the browser is not allowed to use UDP.',
      steps: [
        'Switch off extensions and settings that limit WebRTC (“disable non-proxied UDP”)',
        'Ask whoever looks after this computer whether a policy forbids WebRTC',
      ],
      detail: (error as Error).message,
    }
  } finally {
    here.close()
    there.close()
  }
}

/** Whether MediaPipe and its models load and start. */
export async function checkTracking(): Promise<Verdict> {
  const began = performance.now()
  const video = document.createElement('video')
  return new Promise((resolve) => {
    const tracking = new Tracking(video, {
      onReady: () => {
        setTimeout(() => tracking.close()) // it still has something to begin
        const seconds = (performance.now() - began) / 1000
        resolve({ tone: 'ok', text: `Body, face and hands can be followed here; loaded in ${seconds.toFixed(1)} s.` })
      },
      onSample: () => {},
      onFailed: (message) => resolve(fromTrouble(troubleWithTracking(message))),
    })
  })
}
