/** MediaPipe's results in the conventions of our samples, and which hand is whose. As lhm_runtime/motion does it. */
import type { HandPoints, LandmarkSample } from '../wire/landmark_sample'

export interface Point {
  x: number
  y: number
  z: number
  visibility?: number
}

export type Body = NonNullable<LandmarkSample['body']>

export interface DetectedHand extends HandPoints {
  /** Which hand MediaPipe takes it for. */
  label: 'Left' | 'Right'
}

const HAND_REACH_M = 0.3
const WRISTS = { left: 15, right: 16 }
const UPPER_POINTS = 13 // head and shoulders: what every view has

/** MediaPipe's world points have y down and z away from the camera. */
export function worldPoints(points: Point[]): Float32Array {
  return Float32Array.from(points.flatMap(({ x, y, z }) => [x, -y, -z]))
}

export function imagePoints(points: Point[]): Float32Array {
  return Float32Array.from(points.flatMap(({ x, y }) => [x, y]))
}

export function bodyOf(image: Point[], world: Point[]): Body {
  const isInside = ({ x, y }: Point) => x >= 0 && x <= 1 && y >= 0 && y <= 1
  return {
    world: worldPoints(world),
    image: imagePoints(image),
    visibility: Float32Array.from(image, (point) => (isInside(point) ? clamp01(point.visibility ?? 0) : 0)),
  }
}

/** Scores in order, whatever rounding left of their range. */
export function scoresOf(categories: { score: number }[]): Float32Array {
  return Float32Array.from(categories, ({ score }) => clamp01(score))
}

/** MediaPipe keeps matrices by columns, samples by rows. */
export function byRows(columns: ArrayLike<number>): Float32Array {
  return Float32Array.from({ length: 16 }, (_, i) => columns[(i % 4) * 4 + (i >> 2)])
}

/** Whether looking for hands is worth its time. */
export function showsWrists(body: Body | null): boolean {
  return body === null || Math.max(body.visibility[WRISTS.left], body.visibility[WRISTS.right]) > 0.3
}

/**
 * The left and the right hand among those found: by the wrists of the body, so that neither a mirrored camera nor
 * somebody else's hands can mislead; by MediaPipe's labels where no body is seen.
 *
 * @param aspect width of the picture by its height
 */
export function sortHands(
  body: Body | null,
  hands: DetectedHand[],
  aspect: number,
): { leftHand?: HandPoints; rightHand?: HandPoints } {
  if (!body) {
    const of = (label: string) => hands.find((hand) => hand.label === label)
    return named(of('Left'), of('Right'))
  }
  const reach = HAND_REACH_M * heightsPerMetre(body, aspect)
  const cost = (hand: DetectedHand | undefined, wrist: number) =>
    hand
      ? Math.hypot((hand.image[0] - body.image[2 * wrist]) * aspect, hand.image[1] - body.image[2 * wrist + 1])
      : reach // further away than this it is better to have none
  const candidates = [...hands, undefined]
  let best = {
    sum: Infinity,
    left: undefined as DetectedHand | undefined,
    right: undefined as DetectedHand | undefined,
  }
  for (const left of candidates) {
    for (const right of candidates) {
      if (left && left === right) continue
      const sum = cost(left, WRISTS.left) + cost(right, WRISTS.right)
      if (sum < best.sum) best = { sum, left, right }
    }
  }
  return named(best.left, best.right)
}

function named(leftHand: HandPoints | undefined, rightHand: HandPoints | undefined) {
  return { ...(leftHand && { leftHand }), ...(rightHand && { rightHand }) }
}

/** Size of the person, in heights of the picture, from the spread of head and shoulders. */
function heightsPerMetre(body: Body, aspect: number): number {
  const spread = (points: Float32Array, dimensions: number, stretch: number) => {
    const x = Array.from({ length: UPPER_POINTS }, (_, i) => points[dimensions * i] * stretch)
    const y = Array.from({ length: UPPER_POINTS }, (_, i) => points[dimensions * i + 1])
    const mean = (values: number[]) => values.reduce((sum, value) => sum + value) / values.length
    const [mx, my] = [mean(x), mean(y)]
    return Math.hypot(...x.map((value) => value - mx), ...y.map((value) => value - my))
  }
  return spread(body.image, 2, aspect) / Math.max(spread(body.world, 3, 1), 1e-6)
}

const clamp01 = (value: number) => Math.min(Math.max(value, 0), 1)
