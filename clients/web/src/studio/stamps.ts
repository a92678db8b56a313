/** When the camera showed which time code: test cameras draw them, and the server hands their stamps back. */
import { nowMs } from '../live/clock'
import { eachFrame } from '../live/frames'
import { CornerReader } from '../live/probe'

export class CameraStamps {
  #shownAtMs = new Map<number, number>()
  #stop: () => void = () => {}

  /** Read them off a camera's frames while they are wanted, until `stop`. */
  read(camera: HTMLVideoElement, wanted: () => boolean): void {
    this.stop()
    const reader = new CornerReader()
    this.#stop = eachFrame(camera, ({ captureTime }) => {
      const code = wanted() ? reader.read(camera) : null
      if (!code) return
      const shownMs = captureTime === undefined ? nowMs() : performance.timeOrigin + captureTime
      if (this.#shownAtMs.size > 200) this.#shownAtMs.clear()
      this.#shownAtMs.set(code.drawnMs, shownMs)
    })
  }

  stop(): void {
    this.#stop()
    this.#stop = () => {}
  }

  /** How long ago a stamp was shown, in milliseconds; null when it never was. */
  age(stampMs: number, now: number): number | null {
    const shownMs = this.#shownAtMs.get(stampMs)
    return shownMs === undefined ? null : now - shownMs
  }
}
