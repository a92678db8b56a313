/**
 * Shows a video whose frames are stacked: colour above, alpha (as luma) below. Drawn on a transparent canvas with
 * premultiplied alpha, so whatever lies behind shows through.
 */
import { eachFrame } from './frames'

const VERTEX = `
attribute vec2 corner;
varying vec2 at;
void main() {
  at = vec2(corner.x, 1.0 - corner.y);
  gl_Position = vec4(2.0 * corner - 1.0, 0.0, 1.0);
}`

// A codec smooths across the seam between the halves, so both are read from `margin` on; where alpha was 0 or 1 it
// leaves specks up to 0.02 away, which `clean` takes off without moving what is between.
const FRAGMENT = `
precision mediump float;
varying vec2 at;
uniform sampler2D frame;
uniform float margin;
float clean(float alpha) {
  return alpha * smoothstep(0.01, 0.05, alpha);
}
void main() {
  float y = 0.5 * clamp(at.y, margin, 1.0 - margin);
  vec3 colour = texture2D(frame, vec2(at.x, y)).rgb;
  float alpha = 1.0 - clean(1.0 - clean(texture2D(frame, vec2(at.x, y + 0.5)).g));
  gl_FragColor = vec4(colour * alpha, alpha);
}`

const SEAM_ROWS = 4

/** Whether a frame holds two pictures of this size above each other (it may be scaled as a whole). */
export function isStacked(frameWidth: number, frameHeight: number, width: number, height: number): boolean {
  if (!(frameWidth > 0 && frameHeight > 0 && width > 0 && height > 0)) return false
  return Math.abs((frameHeight * width) / (frameWidth * height) - 2) < 0.1
}

export class Compositor {
  readonly canvas: HTMLCanvasElement
  #gl: WebGLRenderingContext | null = null
  #margin: WebGLUniformLocation | null = null
  #video: HTMLVideoElement
  #picture: () => { width: number; height: number } | null
  #onStacked: (stacked: boolean) => void
  #stacked: boolean | null = null
  #stop: () => void

  /**
   * @param picture size of one picture, once known
   * @param onStacked told when frames begin or cease to be stacked
   */
  constructor(
    video: HTMLVideoElement,
    canvas: HTMLCanvasElement,
    picture: () => { width: number; height: number } | null,
    onStacked: (stacked: boolean) => void,
  ) {
    this.#video = video
    this.canvas = canvas
    this.#picture = picture
    this.#onStacked = onStacked
    canvas.addEventListener('webglcontextlost', (event) => {
      event.preventDefault()
      this.#gl = null
    })
    this.#stop = eachFrame(video, () => this.#draw())
  }

  close(): void {
    this.#stop()
  }

  #draw(): void {
    const { videoWidth, videoHeight } = this.#video
    const picture = this.#picture()
    const stacked = picture !== null && isStacked(videoWidth, videoHeight, picture.width, picture.height)
    if (stacked) this.#drawStacked(videoWidth, videoHeight)
    if (stacked !== this.#stacked) {
      this.#stacked = stacked
      this.#onStacked(stacked)
    }
  }

  #drawStacked(width: number, frameHeight: number): void {
    const gl = (this.#gl ??= this.#open())
    if (!gl || gl.isContextLost()) return
    const height = frameHeight >> 1
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width
      this.canvas.height = height
      gl.viewport(0, 0, width, height)
      gl.uniform1f(this.#margin, SEAM_ROWS / height)
    }
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, this.#video)
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4)
  }

  #open(): WebGLRenderingContext | null {
    // kept after drawing, for snapshots and recordings
    const gl = this.canvas.getContext('webgl', { antialias: false, depth: false, preserveDrawingBuffer: true })
    if (!gl || gl.isContextLost()) return null // a lost one is given back; pictures wait for it
    const program = gl.createProgram()
    for (const [type, source] of [
      [gl.VERTEX_SHADER, VERTEX],
      [gl.FRAGMENT_SHADER, FRAGMENT],
    ] as const) {
      const shader = gl.createShader(type)
      if (!shader) return null
      gl.shaderSource(shader, source)
      gl.compileShader(shader)
      gl.attachShader(program, shader)
    }
    gl.bindAttribLocation(program, 0, 'corner')
    gl.linkProgram(program)
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
      throw new Error(`the compositor does not link: ${gl.getProgramInfoLog(program)}`)
    }
    gl.useProgram(program)
    this.#margin = gl.getUniformLocation(program, 'margin')
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer())
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([0, 0, 1, 0, 0, 1, 1, 1]), gl.STATIC_DRAW)
    gl.enableVertexAttribArray(0)
    gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0)
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture())
    for (const wrap of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, wrap, gl.CLAMP_TO_EDGE)
    for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) {
      gl.texParameteri(gl.TEXTURE_2D, filter, gl.LINEAR)
    }
    this.canvas.width = 0 // sizes and uniforms are set with the first frame
    return gl
  }
}
