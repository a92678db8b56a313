/**
 * The page for OBS' browser source, /obs/{session}: the avatar alone, on nothing. obs_options.ts and live/showing.ts
 * have its parameters. What it has to say it says before the first picture: afterwards it may be on air.
 */
import type { Link } from './live/link'
import type { Phase } from './live/phase'
import { showSession } from './live/showing'
import { readObsOptions, type ObsOptions } from './obs_options'
import { byId, region } from './studio/dom'
import { troubleWithConnection } from './studio/help_texts'

const PATIENCE_MS = 3000
/** After this long a picture that stands still is worse than none. */
const FROZEN_MS = 10_000

const NO_WEBGL =
  'No WebGL here, which draws the transparency. In OBS: Settings, Advanced, Sources: enable browser source hardware acceleration.'

const canvas = byId('composite', HTMLCanvasElement)
const status = region('status')
let wasLive = false
let waiting: ReturnType<typeof setTimeout> | undefined

function say(words: string): void {
  status.textContent = words
  status.hidden = words === ''
}

function lay({ key, width, height, fit, mirror }: ObsOptions): void {
  if (key !== null) document.body.style.background = `#${key}`
  const { style } = canvas
  style.objectFit = fit
  if (mirror) style.transform = 'scaleX(-1)'
  if (width === null && height === null) return
  style.width = width === null ? 'auto' : `${width}px`
  style.height = height === null ? 'auto' : `${height}px`
}

function follow(phase: Phase): void {
  if (phase.name === 'live') {
    clearTimeout(waiting)
    waiting = undefined
    wasLive = true
    say('')
    delete document.body.dataset.frozen
  } else if (phase.name !== 'off') {
    waiting ??= setTimeout(wasLive ? clear : explain, wasLive ? FROZEN_MS : PATIENCE_MS)
    if (!status.hidden) explain() // it may be another reason by now
  }
}

function clear(): void {
  document.body.dataset.frozen = ''
}

function explain(): void {
  const phase = link.phase
  if (phase.name === 'ended') return say(phase.reason || 'This session has ended.')
  const problem = 'problem' in phase ? phase.problem : undefined
  if (!problem) return say('Connecting…')
  const { title, text } = troubleWithConnection(problem)
  say(`${title}. ${text}`)
}

function begin(): Link {
  lay(readObsOptions(new URLSearchParams(location.search)))
  if (!new OffscreenCanvas(1, 1).getContext('webgl')) throw new Error(NO_WEBGL)
  return showSession({ video: byId('video', HTMLVideoElement), canvas }, true, follow)
}

let link: Link
try {
  link = begin()
} catch (error) {
  say(error instanceof Error ? error.message : String(error))
  throw error
}
