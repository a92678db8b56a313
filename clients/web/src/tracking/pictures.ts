/** The camera's pictures as they come, also while the page is hidden behind another, as it is when OBS has the stage. */
import { nowMs } from '../live/clock'
import { eachFrame } from '../live/frames'

export type Picture = HTMLVideoElement | VideoFrame

/** Not in TypeScript's library: Chrome and Edge have it in windows, others not yet. */
interface TrackProcessor {
  readable: ReadableStream<VideoFrame>
}
type TrackProcessorClass = new (init: { track: MediaStreamTrack }) => TrackProcessor

const Processor = (globalThis as { MediaStreamTrackProcessor?: TrackProcessorClass }).MediaStreamTrackProcessor

/** Hand over one picture after the other; those that come while one is in hand are left out: newest wins. */
export function eachPicture(
  video: HTMLVideoElement,
  onPicture: (picture: Picture, capturedMs: number) => Promise<void>,
): () => void {
  let busy = false
  const handle = async (picture: Picture, capturedMs: number) => {
    if (busy) return
    busy = true
    try {
      await onPicture(picture, capturedMs)
    } finally {
      busy = false
    }
  }
  // a video element knows best when its frame was captured, but a hidden page is shown no frames
  const stopFrames = eachFrame(video, ({ captureTime }) => {
    void handle(video, captureTime === undefined ? nowMs() : performance.timeOrigin + captureTime)
  })
  let hidden: AbortController | null = null
  const onVisibility = () => {
    hidden?.abort()
    hidden = null
    const track = (video.srcObject as MediaStream | null)?.getVideoTracks()[0]
    if (document.hidden && Processor && track) {
      hidden = new AbortController()
      void readTrack(new Processor({ track: track.clone() }), hidden.signal, handle)
    }
  }
  document.addEventListener('visibilitychange', onVisibility)
  onVisibility()
  return () => {
    stopFrames()
    hidden?.abort()
    document.removeEventListener('visibilitychange', onVisibility)
  }
}

async function readTrack(
  { readable }: TrackProcessor,
  signal: AbortSignal,
  handle: (frame: VideoFrame, capturedMs: number) => Promise<void>,
): Promise<void> {
  const reader = readable.getReader()
  while (!signal.aborted) {
    const { value: frame, done } = await reader.read()
    if (done) return
    if (signal.aborted) frame.close()
    else void handle(frame, nowMs()).finally(() => frame.close())
  }
  await reader.cancel()
}
