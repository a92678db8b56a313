/** The picture as people see it, background and all, on one canvas: for snapshots, recordings and picture in picture. */
import { eachFrame } from '../live/frames'

export interface SceneSource {
  /** The video, or the canvas of the compositor. */
  picture: () => HTMLVideoElement | HTMLCanvasElement
  /** What is behind it, if it is transparent. */
  behind: () => { image: HTMLImageElement; blurPx: number } | null
}

export function sizeOf(picture: HTMLVideoElement | HTMLCanvasElement): { width: number; height: number } {
  return picture instanceof HTMLVideoElement
    ? { width: picture.videoWidth, height: picture.videoHeight }
    : { width: picture.width, height: picture.height }
}

/** The part of an image of this size that covers a frame of that size. */
export function coveringPart(
  image: { width: number; height: number },
  frame: { width: number; height: number },
): { x: number; y: number; width: number; height: number } {
  const scale = Math.min(image.width / frame.width, image.height / frame.height)
  const [width, height] = [frame.width * scale, frame.height * scale]
  return { x: (image.width - width) / 2, y: (image.height - height) / 2, width, height }
}

export class Scene {
  #canvas = document.createElement('canvas')
  #video: HTMLVideoElement
  #source: SceneSource
  #users = 0
  #stop: () => void = () => {}

  constructor(video: HTMLVideoElement, source: SceneSource) {
    this.#video = video
    this.#source = source
  }

  async snapshot(): Promise<Blob | null> {
    this.#draw()
    return new Promise((resolve) => this.#canvas.toBlob(resolve, 'image/png'))
  }

  /** The scene as video, until `release` is called as often as this. */
  stream(): MediaStream {
    if (this.#users++ === 0) {
      this.#draw()
      this.#stop = eachFrame(this.#video, () => this.#draw())
    }
    return this.#canvas.captureStream()
  }

  release(): void {
    if (--this.#users === 0) this.#stop()
  }

  #draw(): void {
    const picture = this.#source.picture()
    const { width, height } = sizeOf(picture)
    if (width === 0) return
    if (this.#canvas.width !== width || this.#canvas.height !== height) Object.assign(this.#canvas, { width, height })
    const context = this.#canvas.getContext('2d')
    if (!context) return
    context.clearRect(0, 0, width, height)
    const behind = this.#source.behind()
    if (behind?.image.complete && behind.image.naturalWidth > 0) {
      const { image, blurPx } = behind
      const part = coveringPart({ width: image.naturalWidth, height: image.naturalHeight }, { width, height })
      context.filter = blurPx > 0 ? `blur(${blurPx}px)` : 'none'
      const margin = 2 * blurPx // the blur would let the edges fade
      context.drawImage(
        image,
        part.x,
        part.y,
        part.width,
        part.height,
        -margin,
        -margin,
        width + 2 * margin,
        height + 2 * margin,
      )
      context.filter = 'none'
    }
    context.drawImage(picture, 0, 0)
  }
}
