/**
 * The bare viewer, /view/{session}, for OBS and for watching:
 *   ?bg=transparent   the avatar alone, on nothing
 *   ?bg=00ff00        on a colour, whatever the session's background is
 *   ?probe=1          ask for the time code and measure latency: window.lhm has all of it
 *   ?codec=vp8|h264   prefer that codec
 *   ?token=…          where the server wants one
 */
import { Compositor } from './live/compositor'
import { Link } from './live/link'
import type { Codec } from './live/peer'
import type { Phase } from './live/phase'
import { byId, region } from './studio/dom'
import type { SessionState } from './wire/messages'

const query = new URLSearchParams(location.search)
const session = decodeURIComponent(location.pathname.split('/').filter(Boolean).at(-1) ?? '')
const background = query.get('bg')
const codec = (['h264', 'vp8'] as Codec[]).find((known) => known === query.get('codec')) ?? null
const probe = query.get('probe') === '1'

const video = byId('video', HTMLVideoElement)
const canvas = byId('composite', HTMLCanvasElement)
const status = region('status')
let state: SessionState | null = null

if (background && /^[0-9a-f]{6}$/i.test(background)) document.body.style.background = `#${background}`

new Compositor(
  video,
  canvas,
  () => state,
  (stacked) => {
    document.body.toggleAttribute('data-stacked', stacked)
    canvas.hidden = !stacked
  },
)

const link = new Link(
  { session, role: 'view', video, alpha: background !== null, codec },
  {
    onPhase: say,
    onState: (now) => {
      state = now
      if (probe && !now.probe) link.control({ probe: true })
    },
    onStats: () => {},
    onNotice: (message) => console.warn(message),
  },
)

const COME_BACK_MS = 5000
let saying: ReturnType<typeof setTimeout> | undefined

/** Short breaks are nobody's business: an overlay on a stream stays clean. */
function say(phase: Phase): void {
  clearTimeout(saying)
  if (phase.name === 'ended') setTimeout(() => link.start(), COME_BACK_MS) // it may be started again under this name
  if (phase.name === 'live') status.hidden = true
  else if (phase.name !== 'off' && status.hidden) {
    saying = setTimeout(() => {
      const now = link.phase
      status.textContent = now.name === 'ended' ? now.reason || 'This session has ended.' : 'Connecting…'
      status.hidden = false
    }, 3000)
  }
}

declare global {
  interface Window {
    /** For measurements: latencies in milliseconds, newest last. */
    lhm: { drawToDisplay: readonly number[]; glassToGlass: readonly number[]; phase: () => Phase }
  }
}
window.lhm = { drawToDisplay: link.drawToDisplay.all, glassToGlass: link.glassToGlass.all, phase: () => link.phase }

link.start()
