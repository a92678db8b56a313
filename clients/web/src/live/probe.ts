/**
 * The time code in the corner of a video: 32 cells of 4 x 8 pixels at the top left, two times of 14 bits and a check.
 * streaming/time_code.py writes it and describes it.
 */
import { median } from './stats'

const WIDTH = 128
const HEIGHT = 8
const CELL = 4
const BITS = 32
const STAMP = 0x3fff
export const PERIOD_MS = 16_383

export interface TimeCode {
  /** Server's wall clock, modulo PERIOD_MS. */
  drawnMs: number
  /** Clock of whoever drives, modulo PERIOD_MS; null when nobody does. */
  capturedMs: number | null
}

/** What 32 bits say; null when they are no time code. */
export function unpackTimeCode(code: number): TimeCode | null {
  const stamps = code & 0x0fffffff
  let check = 0b1010
  for (let shift = 0; shift < 28; shift += 4) check ^= (stamps >>> shift) & 0xf
  const drawnMs = stamps & STAMP
  const capturedMs = stamps >>> 14
  if (code >>> 28 !== check || drawnMs === STAMP) return null
  return { drawnMs, capturedMs: capturedMs === STAMP ? null : capturedMs }
}

/** Milliseconds from a stamp to now; slightly negative where clocks disagree. */
export function elapsedMs(nowMs: number, stampMs: number): number {
  const early = PERIOD_MS / 8
  const sum = nowMs - stampMs + early
  return sum - PERIOD_MS * Math.floor(sum / PERIOD_MS) - early
}

/** The code in the first 8 rows of RGBA pixels, 128 to a row. */
export function readTimeCode(rgba: Uint8ClampedArray): TimeCode | null {
  let code = 0
  for (let bit = 0; bit < BITS; bit++) {
    let sum = 0
    for (let y = 2; y < HEIGHT - 2; y++) {
      for (let x = bit * CELL + 1; x < (bit + 1) * CELL - 1; x++) {
        const i = 4 * (y * WIDTH + x)
        sum += 0.299 * rgba[i] + 0.587 * rgba[i + 1] + 0.114 * rgba[i + 2]
      }
    }
    if (sum / ((HEIGHT - 4) * (CELL - 2)) > 127) code |= 1 << bit
  }
  return unpackTimeCode(code >>> 0)
}

/** Reads the corner of a video on demand. */
export class CornerReader {
  #context = new OffscreenCanvas(WIDTH, HEIGHT).getContext('2d', { willReadFrequently: true })

  /** `drawnWidth` is the width the code was drawn at: a lower quality tier sends the picture, and the code, smaller. */
  read(video: HTMLVideoElement, drawnWidth = video.videoWidth): TimeCode | null {
    const scale = video.videoWidth / drawnWidth
    if (!this.#context || video.videoWidth < WIDTH * scale || !(scale > 0)) return null
    this.#context.drawImage(video, 0, 0, WIDTH * scale, HEIGHT * scale, 0, 0, WIDTH, HEIGHT)
    return readTimeCode(this.#context.getImageData(0, 0, WIDTH, HEIGHT).data)
  }
}

const RECENT = 120
const MOST = 10_000

/** The latest latencies of one kind, in milliseconds. */
export class Latencies {
  readonly all: number[] = []

  add(ms: number): void {
    if (!(ms > -PERIOD_MS / 8 && ms < 10_000)) return // a stream that stood still says nothing of latency
    this.all.push(ms)
    if (this.all.length > MOST) this.all.splice(0, MOST / 2)
  }

  get recentMedian(): number | null {
    return median(this.all.slice(-RECENT))
  }
}
