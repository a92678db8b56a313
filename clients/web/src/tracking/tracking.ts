/**
 * The camera's video becomes landmark samples, in workers, so that the page stays smooth. A frame that comes while the
 * one before is looked at is left out: newest wins. The pictures never leave this page.
 */
import type { LandmarkSample } from '../wire/landmark_sample'
import { eachPicture, type Picture } from './pictures'
import { showsWrists, sortHands, type Body } from './sight'
import type { Model, Sight, WorkerReply, WorkerRequest } from './worker'

export interface TrackingHandlers {
  /** All models are loaded. */
  onReady: () => void
  onSample: (sample: LandmarkSample) => void
  /** Tracking stopped and will not go on. */
  onFailed: (message: string) => void
}

/** Which models share a worker: one each where cores allow, for each then has the time of the slowest only. */
export function planWorkers(cores: number): Model[][] {
  return cores >= 4 ? [['pose'], ['face'], ['hands']] : [['pose', 'face', 'hands']]
}

/** One sample from what all workers saw. */
export function combine(
  sights: Sight[],
  frame: Pick<LandmarkSample, 'sequence' | 'capturedMs' | 'width' | 'height'>,
): LandmarkSample {
  const { body, face, hands } = Object.assign({}, ...sights) as Sight
  return {
    ...frame,
    ...(body && { body }),
    ...sortHands(body ?? null, hands ?? [], frame.width / frame.height),
    ...(face && { expression: face.expression }),
    ...(face?.head && { head: face.head }),
  }
}

export class Tracking {
  #video: HTMLVideoElement
  #handlers: TrackingHandlers
  #workers: WorkerSlot[]
  #stopPictures: (() => void) | null = null
  #closed = false
  #sequence = 0
  #body: Body | null = null

  constructor(video: HTMLVideoElement, handlers: TrackingHandlers, cores = navigator.hardwareConcurrency) {
    this.#video = video
    this.#handlers = handlers
    this.#workers = planWorkers(cores).map((models) => new WorkerSlot(models))
    Promise.all(this.#workers.map((worker) => worker.ready)).then(
      () => this.#begin(),
      (error: Error) => this.#fail(error),
    )
  }

  close(): void {
    this.#closed = true
    this.#stopPictures?.()
    for (const worker of this.#workers) worker.close()
  }

  #begin(): void {
    if (this.#closed) return
    this.#handlers.onReady()
    this.#stopPictures = eachPicture(this.#video, (picture, capturedMs) =>
      this.#look(picture, capturedMs).catch((error: Error) => this.#fail(error)),
    )
  }

  async #look(source: Picture, capturedMs: number): Promise<void> {
    const [width, height] =
      source instanceof VideoFrame
        ? [source.displayWidth, source.displayHeight]
        : [source.videoWidth, source.videoHeight]
    if (width === 0) return
    const timestampMs = performance.now()
    const skipHands = !showsWrists(this.#body)
    const pictures = await Promise.all(this.#workers.map(() => createImageBitmap(source)))
    const sights = await Promise.all(
      this.#workers.map((worker, i) => worker.look({ type: 'look', picture: pictures[i], timestampMs, skipHands })),
    )
    if (this.#closed) return
    const sample = combine(sights, { sequence: this.#sequence++, capturedMs, width, height })
    this.#body = sample.body ?? null
    this.#handlers.onSample(sample)
  }

  #fail(error: Error): void {
    if (this.#closed) return
    this.close()
    this.#handlers.onFailed(error.message)
  }
}

/** A worker and the one answer it owes. */
class WorkerSlot {
  readonly ready: Promise<void>
  #worker = new Worker(new URL('./worker.ts', import.meta.url), { type: 'module' })
  #resolve: ((sight: Sight) => void) | null = null
  #reject: (error: Error) => void = () => {}

  constructor(models: Model[]) {
    this.ready = new Promise((resolve, reject) => {
      this.#reject = reject
      this.#worker.onmessage = ({ data }: MessageEvent<WorkerReply>) => {
        if (data.type === 'ready') resolve()
        else if (data.type === 'seen') this.#resolve?.(data.sight)
        else this.#reject(new Error(data.message))
      }
      this.#worker.onerror = ({ message }) => this.#reject(new Error(message || 'the tracking worker did not load'))
    })
    this.#send({ type: 'load', models })
  }

  look(request: Extract<WorkerRequest, { type: 'look' }>): Promise<Sight> {
    return new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
      this.#send(request, [request.picture])
    })
  }

  close(): void {
    this.#worker.terminate()
  }

  #send(request: WorkerRequest, transfer: Transferable[] = []): void {
    this.#worker.postMessage(request, transfer)
  }
}
