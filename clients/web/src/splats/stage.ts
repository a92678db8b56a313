/** Where the avatar stands: camera, background, and a loop that draws as often as the screen shows pictures. */
import { SparkRenderer } from '@sparkjsdev/spark'
import * as THREE from 'three'
import type { AvatarFile } from './avatar_file'
import { PoseBuffer } from './pose_buffer'
import type { Scene } from './feed'
import { Puppet } from './puppet'

/** Rasterizer contract: a Gaussian ends where it adds less than a step of 8 bits, and none is thinner than half a pixel. */
const ALPHA_MIN = 1 / 255
const EXTENT = Math.sqrt(2 * Math.log(255))
const EPS2D_PX2 = 0.3

const NEAR_M = 0.05
const FAR_M = 100
/** Of the scene's picture, along its longer side. */
const MOST_PIXELS = 1440
const CLOSE_UP = 4096
const DISPOSE_AGAIN_MS = 50
const DISPOSE_AT_LAST_MS = 10_000

/** Pictures a second of the last three seconds; null until they have passed. */
class Pace {
  #beganMs = 0
  #drawn = 0

  /** One was drawn; says how fast, every three seconds. */
  count(nowMs: number): number | null {
    if (this.#drawn++ === 0) this.#beganMs = nowMs
    const seconds = (nowMs - this.#beganMs) / 1000
    if (seconds < 3) return null
    const rate = (this.#drawn - 1) / seconds
    this.#drawn = 0
    return rate
  }

  /** Forget what was: the page was hidden, or shaders were made. */
  restart(): void {
    this.#drawn = 0
  }
}

export class SplatStage {
  readonly buffer = new PoseBuffer()
  #canvas: HTMLCanvasElement
  #renderer: THREE.WebGLRenderer
  #spark: SparkRenderer
  #world = new THREE.Scene()
  #camera = new THREE.PerspectiveCamera()
  #puppet: Puppet | null = null
  #cast = -1
  #scene: Scene | null = null
  #pace = new Pace()
  #onPace: (rate: number) => void
  #watching: ResizeObserver
  #detail = 1
  #fits = false

  /**
   * Throws where the browser gives no WebGL 2.
   * @param onPace told how many pictures a second are drawn, every three seconds
   */
  constructor(canvas: HTMLCanvasElement, onPace: (rate: number) => void) {
    this.#canvas = canvas
    this.#onPace = onPace
    this.#renderer = new THREE.WebGLRenderer({ canvas, alpha: true, antialias: false, depth: false })
    this.#spark = new SparkRenderer({
      renderer: this.#renderer,
      accumExtSplats: true, // half floats would place Gaussians a pixel off
      sortRadial: false,
      enableLod: false,
      maxStdDev: EXTENT,
      minAlpha: ALPHA_MIN,
      preBlurAmount: EPS2D_PX2,
      blurAmount: 0,
      maxPixelRadius: CLOSE_UP,
    })
    this.#world.add(this.#spark)
    this.#watching = new ResizeObserver(() => (this.#fits = false))
    this.#watching.observe(canvas)
    document.addEventListener('visibilitychange', this.#onVisibility)
    this.#renderer.setAnimationLoop((nowMs) => this.#draw(nowMs))
  }

  /** Show what a scene says; its avatar by `put`. */
  show(scene: Scene): void {
    this.#scene = scene
    const { T_camera_world } = scene
    // ours looks along +z with y down, three's along -z with y up
    const [x, y, z] = T_camera_world.slice(0, 3)
    const worldToCamera = new THREE.Matrix4().set(...row(x, 1), ...row(y, -1), ...row(z, -1), 0, 0, 0, 1)
    worldToCamera.invert().decompose(this.#camera.position, this.#camera.quaternion, this.#camera.scale)
    this.#canvas.style.transform = scene.mirror ? 'scaleX(-1)' : ''
    const clear = scene.background === 'transparent'
    this.#renderer.setClearColor(new THREE.Color(clear ? '#000000' : `#${scene.background}`), clear ? 0 : 1)
    this.#fits = false
  }

  /** Draw this share of the screen's pixels along each side. */
  setDetail(detail: number): void {
    this.#detail = detail
    this.#fits = false
    this.#pace.restart()
  }

  /** The avatar of the scenes and poses of this cast. */
  put(file: AvatarFile, cast: number): void {
    if (this.#puppet) this.#world.remove(this.#puppet.object)
    this.#puppet?.dispose()
    this.#puppet = new Puppet(file)
    this.#world.add(this.#puppet.object)
    this.#cast = cast
    this.#pace.restart()
  }

  /** The canvas goes, too. */
  close(): void {
    this.#canvas.remove()
    this.#renderer.setAnimationLoop(null)
    this.#watching.disconnect()
    document.removeEventListener('visibilitychange', this.#onVisibility)
    this.#dispose(performance.now() + DISPOSE_AT_LAST_MS)
  }

  /** Spark cannot be stopped while it sorts, which it may never end where its context was lost. */
  #dispose(atLastMs: number): void {
    if (this.#spark.sorting && performance.now() < atLastMs) {
      setTimeout(() => this.#dispose(atLastMs), DISPOSE_AGAIN_MS)
      return
    }
    this.#puppet?.dispose()
    this.#spark.dispose()
    this.#renderer.dispose()
    if (!this.#renderer.getContext().isContextLost()) this.#renderer.forceContextLoss()
  }

  #onVisibility = (): void => this.#pace.restart()

  #draw(nowMs: number): void {
    const pose = this.buffer.at(nowMs)
    if (!pose || !this.#puppet || pose.cast !== this.#cast || this.#renderer.getContext().isContextLost()) return
    if (!this.#fits) this.#fit()
    this.#puppet.pose(pose)
    this.#renderer.render(this.#world, this.#camera)
    const rate = this.#pace.count(nowMs)
    if (rate !== null) this.#onPace(rate)
  }

  /**
   * The whole screen, of which the scene's picture is the middle: no edge of it cuts off a hand. Only downwards there is
   * no more than the scene shows, as who is shown by half may have been photographed by half.
   *
   * Just before it is drawn, for it clears the canvas.
   */
  #fit(): void {
    if (!this.#scene) return
    this.#fits = true
    const { width, height, framing, focal_px, centre_px } = this.#scene
    const { clientWidth, clientHeight } = this.#canvas
    const enlarged = Math.min(clientWidth / width, clientHeight / height) || 1
    const wide = (clientWidth || width) / enlarged
    const high = (clientHeight || height) / enlarged
    const centre = [centre_px[0] + (wide - width) / 2, centre_px[1] + (high - height) * (framing === 'full' ? 0.5 : 1)]
    const depth = FAR_M - NEAR_M
    this.#camera.projectionMatrix.set(
      (2 * focal_px[0]) / wide,
      0,
      1 - (2 * centre[0]) / wide,
      0,
      0,
      (2 * focal_px[1]) / high,
      (2 * centre[1]) / high - 1,
      0,
      0,
      0,
      -(FAR_M + NEAR_M) / depth,
      (-2 * FAR_M * NEAR_M) / depth,
      0,
      0,
      -1,
      0,
    )
    this.#camera.projectionMatrixInverse.copy(this.#camera.projectionMatrix).invert()
    const scale = this.#detail * Math.min(enlarged * devicePixelRatio, MOST_PIXELS / Math.max(width, height))
    const size = [Math.round(scale * wide), Math.round(scale * high)] as const
    if (size[0] !== this.#canvas.width || size[1] !== this.#canvas.height) this.#renderer.setSize(...size, false)
  }
}

function row(values: readonly number[], sign: number): [number, number, number, number] {
  const [a, b, c, d] = values
  return [sign * a, sign * b, sign * c, sign * d]
}
