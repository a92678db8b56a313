import { describe, expect, it } from 'vitest'
import { cameraFault } from '../src/tracking/camera'
import {
  bodyOf,
  byRows,
  scoresOf,
  showsWrists,
  sortHands,
  type Body,
  type DetectedHand,
  type Point,
} from '../src/tracking/sight'
import { combine, planWorkers } from '../src/tracking/tracking'
import { encodeLandmarks } from '../src/wire/landmark_sample'

const point = (x: number, y: number, z = 0, visibility = 1): Point => ({ x, y, z, visibility })

// somebody in the middle of a 4:3 picture, facing the camera: their left is on the right of the picture
const skeleton = Array.from({ length: 33 }, (_, i) => point(0.5 + 0.01 * (i % 5), 0.3 + 0.005 * i))
skeleton[11] = point(0.65, 0.5)
skeleton[12] = point(0.35, 0.5)
skeleton[15] = point(0.75, 0.8)
skeleton[16] = point(0.25, 0.8)
const metres = skeleton.map(({ x, y }) => point(((x - 0.5) * 4) / 3, y - 0.5))
const body: Body = bodyOf(skeleton, metres)

const hand = (x: number, y: number, label: 'Left' | 'Right'): DetectedHand => ({
  world: new Float32Array(63),
  image: new Float32Array(42).map((_, i) => (i % 2 ? y : x)),
  label,
})

describe('what was seen', () => {
  it('has y up and z towards the camera', () => {
    const { world } = bodyOf([point(0, 0)], [point(0.1, 0.2, 0.3)])
    expect([...world]).toEqual([0.1, -0.2, -0.3].map(Math.fround))
  })

  it('is not visible outside the picture', () => {
    const { visibility } = bodyOf(
      [point(0.5, 0.5, 0, 0.75), point(1.2, 0.5), point(0.5, -0.1), point(0, 1, 0, 1.5)],
      [],
    )
    expect([...visibility]).toEqual([0.75, 0, 0, 1])
  })

  it('has scores from 0 to 1 and matrices by rows', () => {
    expect([...scoresOf([{ score: -1e-9 }, { score: 0.5 }, { score: 1.0000001 }])]).toEqual([0, 0.5, 1])
    expect([...byRows(Array.from({ length: 16 }, (_, i) => i))]).toEqual([
      0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15,
    ])
  })

  it('may leave out the hands', () => {
    expect(showsWrists(body)).toBe(true)
    expect(showsWrists({ ...body, visibility: new Float32Array(33) })).toBe(false)
    expect(showsWrists(null)).toBe(true)
  })
})

describe('whose hand is it', () => {
  const atLeft = hand(0.74, 0.79, 'Right')
  const atRight = hand(0.26, 0.81, 'Left')
  const farAway = hand(0.02, 0.05, 'Left')

  it('goes by the wrists, whatever MediaPipe calls them', () => {
    expect(sortHands(body, [atRight, atLeft], 4 / 3)).toEqual({ leftHand: atLeft, rightHand: atRight })
    expect(sortHands(body, [atLeft], 4 / 3)).toEqual({ leftHand: atLeft })
    expect(sortHands(body, [atRight, farAway], 4 / 3)).toEqual({ rightHand: atRight })
    expect(sortHands(body, [farAway], 4 / 3)).toEqual({})
    expect(sortHands(body, [], 4 / 3)).toEqual({})
  })

  it('goes by the labels where there is no body', () => {
    expect(sortHands(null, [atRight, atLeft], 4 / 3)).toEqual({ leftHand: atRight, rightHand: atLeft })
  })
})

describe('a sample', () => {
  const frame = { sequence: 3, capturedMs: 1000, width: 640, height: 480 }

  it('combines what the workers saw', () => {
    const face = { expression: new Float32Array(52), head: null }
    const sample = combine([{ body }, { face }, { hands: [hand(0.74, 0.79, 'Left')] }], frame)
    expect(Object.keys(sample).sort()).toEqual([
      'body',
      'capturedMs',
      'expression',
      'height',
      'leftHand',
      'sequence',
      'width',
    ])
    expect(encodeLandmarks(sample).byteLength).toBe(22 + 396 + 198 + 336 + 104)
  })

  it('says so when nobody is there', () => {
    expect(encodeLandmarks(combine([{ body: null }, { face: null }, { hands: [] }], frame)).byteLength).toBe(22)
  })
})

describe('workers', () => {
  it('are three where the cores allow it', () => {
    expect(planWorkers(8)).toHaveLength(3)
    expect(planWorkers(2)).toEqual([['pose', 'face', 'hands']])
  })
})

describe('a camera that does not open', () => {
  it.each([
    ['NotAllowedError', 'refused'],
    ['NotFoundError', 'absent'],
    ['NotReadableError', 'busy'],
    ['TypeError', 'insecure'],
    ['Whatever', 'other'],
  ])('%s: %s', (name, fault) => expect(cameraFault(name)).toBe(fault))
})
