/** Poses come unevenly; pictures are drawn evenly. So what is shown lies a little in the past, between two poses. */
import type { Pose } from './pose_packet'
import { mixQuaternions } from './rotations'

const KEPT = 16
const LEAST_DELAY_MS = 20
const MOST_DELAY_MS = 250
/** Of the past, so quickly is forgotten what was the quickest. */
const DRIFT = 0.001

export class PoseBuffer {
  #poses: Pose[] = []
  /** Of our clock against the session's, for the packet that took least long. */
  #offsetMs = Infinity
  /** Between packets, of late, and how much later than the quickest they come. */
  #intervalMs = 33
  #lateMs = 0
  #heardMs = 0
  #out: Pose | null = null

  /** Take a pose in; one out of order, or for another avatar than the last, leaves nothing behind. */
  push(pose: Pose, nowMs: number): void {
    const last = this.#poses.at(-1)
    if (last && (pose.cast !== last.cast || pose.timeMs <= last.timeMs)) this.#clear()
    else if (last) {
      const interval = Math.min(pose.timeMs - last.timeMs, MOST_DELAY_MS)
      this.#intervalMs += 0.1 * (interval - this.#intervalMs)
    }
    const offset = nowMs - pose.timeMs
    this.#offsetMs = Math.min(this.#offsetMs + DRIFT * (nowMs - this.#heardMs), offset)
    this.#heardMs = nowMs
    const late = offset - this.#offsetMs
    this.#lateMs += (late > this.#lateMs ? 0.5 : 0.02) * (late - this.#lateMs)
    this.#poses.push(pose)
    if (this.#poses.length > KEPT) this.#poses.shift()
  }

  #clear(): void {
    this.#poses = []
    this.#offsetMs = Infinity
    this.#lateMs = 0
  }

  /** How far in the past what is shown lies: as much as it takes that the next pose is there in time. */
  get delayMs(): number {
    return Math.min(Math.max(this.#intervalMs + this.#lateMs, LEAST_DELAY_MS), MOST_DELAY_MS)
  }

  /** What is to be shown now; the newest where nothing newer came in time. The same object every time. */
  at(nowMs: number): Pose | null {
    const timeMs = nowMs - this.#offsetMs - this.delayMs
    const next = this.#poses.findIndex((pose) => pose.timeMs > timeMs)
    const end = next < 0 ? this.#poses.at(-1) : this.#poses[next]
    if (!end) return null
    const start = next > 0 ? this.#poses[next - 1] : end
    const share = start === end ? 0 : (timeMs - start.timeMs) / (end.timeMs - start.timeMs)
    return this.#mix(start, end, share)
  }

  #mix(start: Pose, end: Pose, share: number): Pose {
    if (this.#out?.expression.length !== end.expression.length) {
      const { transl, rotations, expression } = end
      this.#out = { ...end, transl: transl.slice(), rotations: rotations.slice(), expression: expression.slice() }
    }
    const out = this.#out
    out.timeMs = (1 - share) * start.timeMs + share * end.timeMs
    out.cast = end.cast
    out.sequence = end.sequence
    mixQuaternions(start.rotations, end.rotations, share, out.rotations)
    for (let i = 0; i < 3; i++) out.transl[i] = (1 - share) * start.transl[i] + share * end.transl[i]
    for (let i = 0; i < out.expression.length; i++) {
      out.expression[i] = (1 - share) * start.expression[i] + share * end.expression[i]
    }
    return out
  }
}
