/** Runs some of MediaPipe's landmarkers on the frames it is given. Everything is loaded from our own server. */
import { FaceLandmarker, HandLandmarker, PoseLandmarker } from '@mediapipe/tasks-vision'
import { findRenderer } from './graphics'
import { bodyOf, byRows, imagePoints, scoresOf, worldPoints, type Body, type DetectedHand } from './sight'

export type Model = 'pose' | 'face' | 'hands'

export type WorkerRequest =
  { type: 'load'; models: Model[] } | { type: 'look'; picture: ImageBitmap; timestampMs: number; skipHands: boolean }

export interface Sight {
  body?: Body | null
  face?: { expression: Float32Array; head: Float32Array | null } | null
  hands?: DetectedHand[]
}

export type WorkerReply =
  { type: 'ready'; delegate: Delegate } | { type: 'seen'; sight: Sight } | { type: 'failed'; message: string }

export type Delegate = 'GPU' | 'CPU'

type Looker = (picture: ImageBitmap, timestampMs: number, skipHands: boolean) => Sight

/** Where vite.config.ts puts MediaPipe's wasm. */
declare const MEDIAPIPE_FOLDER: string

// The loader leaves its module behind once and for one landmarker: each needs a loader of its own address.
const wasmFor = (model: Model, delegate: Delegate) => ({
  wasmLoaderPath: `${MEDIAPIPE_FOLDER}/vision_wasm_module_internal.js?${model}-${delegate}`,
  wasmBinaryPath: `${MEDIAPIPE_FOLDER}/vision_wasm_module_internal.wasm`,
})

const lookers: Looker[] = []
const reply = (message: WorkerReply) => postMessage(message)

addEventListener('message', ({ data }: MessageEvent<WorkerRequest>) => {
  if (data.type === 'load') void load(data.models)
  else look(data.picture, data.timestampMs, data.skipHands)
})

async function load(models: Model[]): Promise<void> {
  let delegate: Delegate = hasGpu() ? 'GPU' : 'CPU'
  try {
    try {
      for (const model of models) lookers.push(await open(model, delegate))
    } catch (error) {
      if (delegate === 'CPU') throw error
      lookers.length = 0
      delegate = 'CPU' // some drivers offer a context that the models do not run on
      for (const model of models) lookers.push(await open(model, delegate))
    }
    reply({ type: 'ready', delegate })
  } catch (error) {
    reply({ type: 'failed', message: error instanceof Error ? error.message : String(error) })
  }
}

function look(picture: ImageBitmap, timestampMs: number, skipHands: boolean): void {
  try {
    const sights = lookers.map((looker) => looker(picture, timestampMs, skipHands))
    reply({ type: 'seen', sight: Object.assign({}, ...sights) as Sight })
  } catch (error) {
    reply({ type: 'failed', message: error instanceof Error ? error.message : String(error) })
  } finally {
    picture.close()
  }
}

async function open(model: Model, delegate: Delegate): Promise<Looker> {
  const wasm = wasmFor(model, delegate)
  const options = (file: string) => ({
    baseOptions: { modelAssetPath: `/models/${file}`, delegate },
    canvas: new OffscreenCanvas(1, 1),
    runningMode: 'VIDEO' as const,
  })
  switch (model) {
    case 'pose': {
      const landmarker = await PoseLandmarker.createFromOptions(wasm, options('pose_landmarker_full.task'))
      return (picture, timestampMs) => {
        const found = landmarker.detectForVideo(picture, timestampMs)
        const [image, world] = [found.landmarks[0], found.worldLandmarks[0]]
        found.close()
        return { body: image && world ? bodyOf(image, world) : null }
      }
    }
    case 'face': {
      const landmarker = await FaceLandmarker.createFromOptions(wasm, {
        ...options('face_landmarker.task'),
        outputFaceBlendshapes: true,
        outputFacialTransformationMatrixes: true,
      })
      return (picture, timestampMs) => {
        const found = landmarker.detectForVideo(picture, timestampMs)
        const [scores, matrix] = [found.faceBlendshapes[0], found.facialTransformationMatrixes[0]]
        return {
          face: scores ? { expression: scoresOf(scores.categories), head: matrix ? byRows(matrix.data) : null } : null,
        }
      }
    }
    case 'hands': {
      const landmarker = await HandLandmarker.createFromOptions(wasm, {
        ...options('hand_landmarker.task'),
        numHands: 2,
      })
      return (picture, timestampMs, skipHands) => {
        if (skipHands) return { hands: [] }
        const found = landmarker.detectForVideo(picture, timestampMs)
        return {
          hands: found.landmarks.map((image, i) => ({
            world: worldPoints(found.worldLandmarks[i]),
            image: imagePoints(image),
            label: found.handedness[i][0].categoryName === 'Left' ? 'Left' : 'Right',
          })),
        }
      }
    }
  }
}

/** A real one: on a software renderer the CPU delegate is ten times as fast. */
const hasGpu = (): boolean => findRenderer(new OffscreenCanvas(1, 1))?.software === false
