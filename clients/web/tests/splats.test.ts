import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { listMoves, moveFaces, packTexels, parseAvatar, TEXELS } from '../src/splats/avatar_file'
import { COARSEST, nextDetail } from '../src/splats/detail'
import { PoseBuffer } from '../src/splats/pose_buffer'
import { halfFloat, JOINTS, parsePose, type Pose } from '../src/splats/pose_packet'
import { Skeleton } from '../src/splats/skeleton'
import { halfFloatBits } from '../src/wire/half_float'

// tests/drawn.py writes them, and says what is in them
const golden = (name: string): ArrayBuffer =>
  new Uint8Array(readFileSync(new URL(`../../../tests/streaming/golden/${name}`, import.meta.url))).buffer
const told = JSON.parse(new TextDecoder().decode(golden('drawn.json'))) as {
  matrices: number[][][]
  means: number[][]
  moved: number[][]
}

const pose = () => parsePose(golden('drawn_pose.bin'))!

const closeTo = (found: ArrayLike<number>, meant: number[], within: number) => {
  expect(found.length).toBe(meant.length)
  for (let i = 0; i < meant.length; i++) expect(Math.abs(found[i] - meant[i])).toBeLessThan(within)
}

describe('a pose packet', () => {
  it('is read as the server meant it', () => {
    const { cast, sequence, timeMs, transl, expression } = pose()
    expect({ cast, sequence, timeMs }).toEqual({ cast: 3, sequence: 4_000_000_001, timeMs: 1_234_567.25 })
    expect([...transl]).toEqual([0.25, -1.5, 3])
    expect([...expression]).toEqual([0.5, -0.125, 1])
  })

  it('becomes the joint matrices that the server would have', () => {
    const { parents, rest } = parseAvatar(golden('drawn_avatar.bin'))
    const matrices = new Float32Array(12 * JOINTS)
    new Skeleton(parents, rest).matrices(pose(), matrices)
    closeTo(matrices, told.matrices.flat(2), 3e-3)
  })

  it('of another kind, version or length is none', () => {
    const data = golden('drawn_pose.bin')
    expect(parsePose(data.slice(0, -1))).toBeNull()
    expect(parsePose(data.slice(0, 20))).toBeNull()
    for (const at of [0, 2]) {
      const other = data.slice(0)
      new Uint8Array(other)[at]++
      expect(parsePose(other)).toBeNull()
    }
  })

  it('has half floats as JavaScript writes them', () => {
    for (const value of [0, 1, -0.333251953125, 65504, 2 ** -24, 6.103515625e-5]) {
      expect(halfFloat(halfFloatBits(value))).toBe(value)
    }
  })
})

describe('an avatar file', () => {
  const file = parseAvatar(golden('drawn_avatar.bin'))

  it('is read as the server meant it', () => {
    expect({ gaussians: file.gaussians, moved: file.moved, expressions: file.expressions }).toEqual({
      gaussians: 5, // of six one is too faint
      moved: 2,
      expressions: 3,
    })
    for (let i = 0; i < file.gaussians; i++) {
      const mean = [0, 1, 2].map((axis) => file.low[axis] + file.step[axis] * file.means[axis * file.gaussians + i])
      closeTo(mean, told.means[i], 1e-5)
    }
    expect(file.parents[0]).toBe(255)
  })

  it('gives a shader all of each Gaussian', () => {
    const texels = packTexels(file, 8)
    const n = file.gaussians
    expect(texels.length).toBe(8 * 4 * TEXELS)
    const words = texels.subarray(4 * TEXELS * 3, 4 * TEXELS * 4)
    expect([words[0] & 0xffff, words[0] >>> 16, words[1] & 0xffff]).toEqual([0, 1, 2].map((k) => file.means[k * n + 3]))
    expect([words[1] >>> 24, words[2] & 255]).toEqual([file.scales[n + 3], file.scales[2 * n + 3]])
    expect(words[3]).toBe(file.quaternions[3])
    const bytes = new Uint8Array(words.buffer, words.byteOffset, words.byteLength)
    expect([...bytes.subarray(16, 20)]).toEqual([0, 1, 2, 3].map((k) => file.rgba[k * n + 3]))
    expect(bytes.subarray(32, 40).reduce((sum, weight) => sum + weight)).toBe(255)
  })

  it('moves the face as expressions ask', () => {
    const out = new Float32Array(4 * file.moved)
    moveFaces(listMoves(file), pose().expression, out)
    for (let i = 0; i < file.moved; i++) closeTo(out.subarray(4 * i, 4 * i + 3), told.moved[i], 1e-5)
    moveFaces(listMoves(file), new Float32Array(0), out)
    expect(out.every((value) => value === 0)).toBe(true)
  })

  it('that is cut off, longer or of another version is refused with the reason', () => {
    const data = golden('drawn_avatar.bin')
    expect(() => parseAvatar(data.slice(0, -1))).toThrow('cut off')
    expect(() => parseAvatar(new Uint8Array([...new Uint8Array(data), 0]).buffer)).toThrow('are expected')
    const later = data.slice(0)
    new Uint8Array(later)[4] = 9
    expect(() => parseAvatar(later)).toThrow('version 9')
  })
})

describe('the buffer of poses', () => {
  const at = (timeMs: number, x: number): Pose => ({ ...pose(), timeMs, transl: Float32Array.of(x, 0, 0) })

  it('shows the way between two poses, and the last when none follows', () => {
    const buffer = new PoseBuffer()
    expect(buffer.at(0)).toBeNull()
    for (let i = 0; i < 60; i++) buffer.push(at(1000 + 20 * i, i), 5000 + 20 * i)
    const nowMs = 5000 + 20 * 59
    const seen = [0, 5, 10, 15].map((later) => buffer.at(nowMs + later)!.transl[0])
    for (let i = 1; i < seen.length; i++) expect(seen[i] - seen[i - 1]).toBeCloseTo(0.25, 1)
    expect(59 - seen[0]).toBeLessThan(2)
    expect(buffer.at(nowMs + 10_000)!.transl[0]).toBe(59)
  })

  it('waits longer where packets come unevenly', () => {
    const even = new PoseBuffer()
    const uneven = new PoseBuffer()
    for (let i = 0; i < 60; i++) {
      even.push(at(20 * i, i), 20 * i)
      uneven.push(at(20 * i, i), 20 * i + (i % 4 === 0 ? 60 : 0))
    }
    expect(uneven.delayMs).toBeGreaterThan(even.delayMs + 20)
    expect(uneven.delayMs).toBeLessThanOrEqual(250)
  })

  it('turns along the shorter arc, and keeps quaternions of unit length', () => {
    const buffer = new PoseBuffer()
    const start = at(0, 0)
    const end = at(20, 1)
    end.rotations = end.rotations.map((value) => -value)
    buffer.push(start, 100)
    buffer.push(end, 120)
    const { rotations } = buffer.at(130)!
    let dot = 0
    for (let i = 0; i < 4; i++) dot += rotations[i] * start.rotations[i]
    expect(Math.abs(dot)).toBeCloseTo(1, 5)
  })

  it('begins anew with another avatar', () => {
    const buffer = new PoseBuffer()
    buffer.push(at(0, 0), 0)
    buffer.push({ ...at(20, 8), cast: 4 }, 20)
    expect(buffer.at(25)!.transl[0]).toBe(8)
  })
})

describe('the detail that is drawn', () => {
  it('stays where pictures come fast enough', () => {
    expect(nextDetail(1, 20)).toBe(1)
    expect(nextDetail(0.6, 60)).toBe(0.6)
  })

  it('falls as far as a slow device needs, and then nothing helps', () => {
    expect(nextDetail(1, 19)).toBe(0.8)
    expect(nextDetail(1, 12)).toBeCloseTo(Math.SQRT1_2)
    expect(nextDetail(1, 2)).toBe(COARSEST)
    expect(nextDetail(COARSEST, 19)).toBeNull()
  })

  it('is found, or given up, within few looks', () => {
    for (const fullFps of [3, 8, 12, 15, 19]) {
      let detail: number | null = 1
      let looks = 0
      // as slow as it has pixels
      for (let next = nextDetail(1, fullFps); next !== detail && detail !== null; looks++) {
        detail = next
        if (detail !== null) next = nextDetail(detail, fullFps / detail ** 2)
      }
      expect(looks).toBeLessThan(4)
      expect(detail === null).toBe(fullFps / COARSEST ** 2 < 20)
    }
  })
})
