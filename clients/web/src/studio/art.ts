/**
 * The figure of soft dots on the empty stage: a body of Gaussians, as the product draws people. While an avatar is made
 * it gathers out of a cloud as far as the work has come.
 */

interface Dot {
  x: number
  y: number
  /** Half axes: along the limb and across it. */
  long: number
  wide: number
  /** Direction of the long axis. */
  angle: number
  hue: number
  /** Where it floats before it belongs to the body. */
  cloudX: number
  cloudY: number
  phase: number
}

// capsules of a body 1 high, centred at x = 0: from, to, radius there; one arm is raised to greet
const LIMBS: [x0: number, y0: number, x1: number, y1: number, radius0: number, radius1: number, dots: number][] = [
  [0, 0.052, 0, 0.082, 0.044, 0.038, 110],
  [0, 0.12, 0, 0.16, 0.02, 0.024, 20],
  [-0.08, 0.19, 0.08, 0.19, 0.03, 0.03, 60],
  [0, 0.22, 0, 0.35, 0.092, 0.066, 230],
  [0, 0.37, 0, 0.45, 0.064, 0.078, 150],
  [0.115, 0.2, 0.165, 0.33, 0.027, 0.022, 55],
  [0.165, 0.33, 0.18, 0.47, 0.021, 0.015, 45],
  [0.182, 0.49, 0.183, 0.53, 0.016, 0.011, 16],
  [-0.115, 0.2, -0.195, 0.29, 0.027, 0.022, 50],
  [-0.195, 0.29, -0.225, 0.15, 0.021, 0.015, 45],
  [-0.228, 0.13, -0.235, 0.085, 0.017, 0.012, 18],
  [0.045, 0.48, 0.065, 0.71, 0.046, 0.03, 90],
  [0.065, 0.72, 0.07, 0.93, 0.03, 0.018, 65],
  [-0.045, 0.48, -0.065, 0.71, 0.046, 0.03, 90],
  [-0.065, 0.72, -0.07, 0.93, 0.03, 0.018, 65],
  [0.07, 0.96, 0.105, 0.972, 0.014, 0.011, 16],
  [-0.07, 0.96, -0.105, 0.972, 0.014, 0.011, 16],
]
const COLOURS = ['#ffc9a3', '#ffa377', '#ff8152', '#f2624a', '#c9528a', '#9350cc', '#6f55e2']
const STEP_MS = 33

function makeDots(): Dot[] {
  let seed = 7
  const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647 // the same figure every time
  return LIMBS.flatMap(([x0, y0, x1, y1, radius0, radius1, count]) =>
    Array.from({ length: count }, () => {
      const aside = 2 * random() - 1
      const length = Math.hypot(x1 - x0, y1 - y0)
      const [dx, dy] = [(x1 - x0) / length, (y1 - y0) / length]
      const cap = Math.sqrt(1 - aside * aside) // the ends are round
      const along = random() * (length + (radius0 + radius1) * cap) - radius0 * cap
      const radius = radius0 + (radius1 - radius0) * Math.min(1, Math.max(0, along / length))
      const x = x0 + dx * along - dy * radius * aside
      const y = y0 + dy * along + dx * radius * aside
      const far = 2 * Math.PI * random()
      const wide = 0.004 + 0.01 * random() ** 2
      return {
        x,
        y,
        wide,
        long: wide * (1.2 + 1.6 * random()),
        angle: Math.atan2(dy, dx) + 0.7 * (random() - 0.5),
        hue: Math.min(COLOURS.length - 1, Math.floor(y * COLOURS.length * 0.95 + 1.1 * random())),
        cloudX: Math.cos(far) * (0.2 + 0.55 * random()),
        cloudY: 0.45 + Math.sin(far) * (0.15 + 0.4 * random()),
        phase: 2 * Math.PI * random(),
      }
    }),
  )
}

function makeSprites(): HTMLCanvasElement[] {
  return COLOURS.map((colour) => {
    const sprite = document.createElement('canvas')
    sprite.width = sprite.height = 64
    const context = sprite.getContext('2d')!
    const soft = context.createRadialGradient(32, 32, 0, 32, 32, 32)
    for (let r = 0; r <= 1; r += 0.1) {
      const alpha = Math.round(255 * Math.exp(-4.5 * r * r) * (1 - r)) // a Gaussian, cut off smoothly
      soft.addColorStop(r, colour + alpha.toString(16).padStart(2, '0'))
    }
    context.fillStyle = soft
    context.fillRect(0, 0, 64, 64)
    return sprite
  })
}

export class Art {
  #canvas: HTMLCanvasElement
  #dots = makeDots()
  #sprites = makeSprites()
  #gathered = 1
  #goal = 1
  #lastMs = 0
  #still = matchMedia('(prefers-reduced-motion: reduce)')
  #handle = 0

  constructor(canvas: HTMLCanvasElement) {
    this.#canvas = canvas
  }

  /** How much of the figure has gathered, 0 to 1. */
  set goal(fraction: number) {
    this.#goal = fraction
    if (this.#still.matches) this.#draw(0)
  }

  set shown(shown: boolean) {
    cancelAnimationFrame(this.#handle)
    if (!shown) return
    const next = (ms: number) => {
      this.#handle = requestAnimationFrame(next)
      if (ms - this.#lastMs < STEP_MS || (this.#still.matches && this.#lastMs > 0)) return
      this.#lastMs = ms
      this.#draw(ms / 1000)
    }
    this.#handle = requestAnimationFrame(next)
  }

  #draw(seconds: number): void {
    const { clientWidth, clientHeight } = this.#canvas
    const ratio = Math.min(devicePixelRatio, 2)
    const [width, height] = [Math.round(clientWidth * ratio), Math.round(clientHeight * ratio)]
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      this.#canvas.width = width
      this.#canvas.height = height
    }
    const context = this.#canvas.getContext('2d')
    if (!context || width === 0) return
    this.#gathered = this.#still.matches ? this.#goal : this.#gathered + (this.#goal - this.#gathered) * 0.06
    context.setTransform(1, 0, 0, 1, 0, 0)
    context.globalAlpha = 1
    context.clearRect(0, 0, width, height)
    const tall = Math.min(height * 0.66, width * 1.15)
    const [left, top] = [width / 2, height * 0.06 + (height * 0.66 - tall) / 2]
    const breath = Math.sin(seconds * 1.5)
    for (const { x, y, long, wide, angle, hue, cloudX, cloudY, phase } of this.#dots) {
      // dots arrive one after the other, from the feet up
      const own = Math.min(1, Math.max(0, this.#gathered * 1.7 - 0.7 * (1 - y)))
      const here = own * own * (3 - 2 * own)
      const sway = 0.006 * Math.sin(seconds * 0.9) * (1 - y)
      const wave = x < -0.17 && y < 0.29 ? 0.14 * Math.sin(seconds * 2.6) * (0.29 - y) : 0
      const chest = 0.004 * breath * Math.exp(-(((y - 0.26) / 0.08) ** 2)) * Math.sign(x)
      const drift = 0.012 * (1 - here) + 0.001
      const px = here * (x + sway + wave + chest) + (1 - here) * cloudX + drift * Math.sin(seconds + phase)
      const py = here * (y + 0.002 * breath * (1 - y)) + (1 - here) * cloudY + drift * Math.cos(1.3 * seconds + phase)
      const turned = angle + (1 - here) * (phase + 0.3 * seconds)
      const [cos, sin] = [Math.cos(turned), Math.sin(turned)]
      const [a, b] = [tall * long * 2.6, tall * wide * 2.6]
      context.setTransform(a * cos, a * sin, -b * sin, b * cos, left + tall * px, top + tall * py)
      context.globalAlpha = 0.35 + 0.6 * here
      context.drawImage(this.#sprites[hue], -1, -1, 2, 2)
    }
  }
}
