/**
 * One moment of one person as bytes: the format of streaming/protocol.py, which describes it. Tests of both read the
 * same golden files.
 */
import { halfFloatBits } from './half_float'

export interface HandPoints {
  /** 21 x 3, metres: x right of the image, y up, z towards the camera. */
  world: Float32Array
  /** 21 x 2, fractions of the picture, y down. */
  image: Float32Array
}

export interface LandmarkSample {
  /** Counted up by the sender. */
  sequence: number
  /** When the picture was taken, milliseconds on this machine's clock. */
  capturedMs: number
  width: number
  height: number
  body?: {
    /** 33 x 3, metres, axes as of a hand. */
    world: Float32Array
    /** 33 x 2, fractions of the picture. */
    image: Float32Array
    /** 33, 0 to 1. */
    visibility: Float32Array
  }
  leftHand?: HandPoints
  rightHand?: HandPoints
  /** 478 x 2, fractions of the picture. */
  face?: Float32Array
  /** 52 scores in MediaPipe's order, 0 to 1. */
  expression?: Float32Array
  /** Pose of the canonical face, 4 x 4 by rows, centimetres. */
  head?: Float32Array
}

const HEADER_BYTES = 22
const MAX_REACH_M = 100
const MAX_FRACTION = 100
const MAX_HEAD_CM = 1e5
const MAX_SIDE = 8192

interface Block {
  values: Float32Array
  bytes: 2 | 4
  lowest: number
  highest: number
}

/** The bytes of one sample. A part with a number that the format does not allow is left out, as if it were not seen. */
export function encodeLandmarks(sample: LandmarkSample): ArrayBuffer {
  const { width, height, capturedMs } = sample
  if (!(width >= 1 && width <= MAX_SIDE && height >= 1 && height <= MAX_SIDE && Number.isFinite(capturedMs))) {
    throw new RangeError(`a picture of ${width}x${height} taken at ${capturedMs} ms cannot be sent`)
  }
  const parts: [bit: number, blocks: Block[]][] = []
  const { body, leftHand, rightHand, face, expression, head } = sample
  if (body) {
    // two bits, but one part: image points and visibilities without a body behind them are of no use
    const blocks = [world(body.world, 33), image(body.image, 33), scores(body.visibility, 33)]
    if (blocks.every(isSendable)) parts.push([0, blocks.slice(0, 1)], [1, blocks.slice(1)])
  }
  if (leftHand) parts.push([2, [world(leftHand.world, 21), image(leftHand.image, 21)]])
  if (rightHand) parts.push([3, [world(rightHand.world, 21), image(rightHand.image, 21)]])
  if (face) parts.push([4, [image(face, 478)]])
  if (expression) parts.push([5, [scores(expression, 52)]])
  if (head) parts.push([6, [block(head, 16, 4, -MAX_HEAD_CM, MAX_HEAD_CM)]])

  const sent = parts.filter(([, blocks]) => blocks.every(isSendable))
  const length = sent.flatMap(([, blocks]) => blocks).reduce((sum, { values, bytes }) => sum + values.length * bytes, 0)
  const buffer = new ArrayBuffer(HEADER_BYTES + length)
  const view = new DataView(buffer)
  view.setUint8(0, 0x4c)
  view.setUint8(1, 0x4c)
  view.setUint8(2, 1) // version
  view.setUint8(3, 1) // kind: landmarks
  view.setUint16(
    4,
    sent.reduce((flags, [bit]) => flags | (1 << bit), 0),
    true,
  )
  view.setUint32(6, sample.sequence >>> 0, true)
  view.setFloat64(10, capturedMs, true)
  view.setUint16(18, width, true)
  view.setUint16(20, height, true)
  let offset = HEADER_BYTES
  for (const { values, bytes } of sent.flatMap(([, blocks]) => blocks)) {
    for (const value of values) {
      if (bytes === 4) view.setFloat32(offset, value, true)
      else view.setUint16(offset, halfFloatBits(value), true)
      offset += bytes
    }
  }
  return buffer
}

const world = (values: Float32Array, points: number) => block(values, 3 * points, 4, -MAX_REACH_M, MAX_REACH_M)
const image = (values: Float32Array, points: number) => block(values, 2 * points, 2, -MAX_FRACTION, MAX_FRACTION)
const scores = (values: Float32Array, count: number) => block(values, count, 2, 0, 1)

function block(values: Float32Array, count: number, bytes: 2 | 4, lowest: number, highest: number): Block {
  if (values.length !== count) throw new RangeError(`${values.length} numbers where the format has ${count}`)
  return { values, bytes, lowest, highest }
}

function isSendable({ values, lowest, highest }: Block): boolean {
  return values.every((value) => value >= lowest && value <= highest) // NaN compares false
}
