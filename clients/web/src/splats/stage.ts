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
const MOST_PIXELS = 1440
const CLOSE_UP = 4096
const DISPOSE_AGAIN_MS = 50

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
    this.#watching = new ResizeObserver(() => this.#resize())
    this.#watching.observe(canvas)
    document.addEventListener('visibilitychange', this.#onVisibility)
    this.#renderer.setAnimationLoop((nowMs) => this.#draw(nowMs))
  }

  /** Show what a scene says; its avatar by `put`. */
  show(scene: Scene): void {
    this.#scene = scene
    const { width, height, focal_px, centre_px, T_camera_world } = scene
    // ours looks along +z with y down, three's along -z with y up
    const [x, y, z] = T_camera_world.slice(0, 3)
    const worldToCamera = new THREE.Matrix4().set(...row(x, 1), ...row(y, -1), ...row(z, -1), 0, 0, 0, 1)
    worldToCamera.invert().decompose(this.#camera.position, this.#camera.quaternion, this.#camera.scale)
    const depth = FAR_M - NEAR_M
    this.#camera.projectionMatrix.set(
      (2 * focal_px[0]) / width,
      0,
      1 - (2 * centre_px[0]) / width,
      0,
      0,
      (2 * focal_px[1]) / height,
      (2 * centre_px[1]) / height - 1,
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
    this.#canvas.style.transform = scene.mirror ? 'scaleX(-1)' : ''
    const clear = scene.background === 'transparent'
    this.#renderer.setClearColor(new THREE.Color(clear ? '#000000' : `#${scene.background}`), clear ? 0 : 1)
    this.#resize()
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

  close(): void {
    this.#renderer.setAnimationLoop(null)
    this.#watching.disconnect()
    document.removeEventListener('visibilitychange', this.#onVisibility)
    this.#dispose()
  }

  /** Spark cannot be stopped while it sorts. */
  #dispose(): void {
    if (this.#spark.sorting) {
      setTimeout(() => this.#dispose(), DISPOSE_AGAIN_MS)
      return
    }
    this.#puppet?.dispose()
    this.#spark.dispose()
    this.#renderer.dispose()
    this.#renderer.forceContextLoss()
  }

  #onVisibility = (): void => this.#pace.restart()

  #draw(nowMs: number): void {
    const pose = this.buffer.at(nowMs)
    if (!pose || !this.#puppet || pose.cast !== this.#cast || this.#renderer.getContext().isContextLost()) return
    this.#puppet.pose(pose)
    this.#renderer.render(this.#world, this.#camera)
    const rate = this.#pace.count(nowMs)
    if (rate !== null) this.#onPace(rate)
  }

  /** As many pixels as the screen has where the picture is. */
  #resize(): void {
    if (!this.#scene) return
    const { width, height } = this.#scene
    const { clientWidth, clientHeight } = this.#canvas
    const fits = Math.min(clientWidth / width, clientHeight / height) * devicePixelRatio
    const scale = Math.min(fits || 1, MOST_PIXELS / Math.max(width, height))
    this.#renderer.setSize(Math.round(scale * width), Math.round(scale * height), false)
  }
}

function row(values: readonly number[], sign: number): [number, number, number, number] {
  const [a, b, c, d] = values
  return [sign * a, sign * b, sign * c, sign * d]
}
