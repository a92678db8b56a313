/**
 * The bare viewer, /view/{session}: the session as it is, background and all. live/showing.ts has its parameters,
 * splats/instead.ts those of a page that draws the avatar itself, live/relayed.ts that of one that watches by a relay.
 */
import { showRelayed } from './live/relayed'
import { sessionOfPage, showSession } from './live/showing'
import type { Phase } from './live/phase'
import { drawInstead } from './splats/instead'
import { button, byId, region } from './studio/dom'

const PATIENCE_MS = 3000
const status = region('status')
let saying: ReturnType<typeof setTimeout> | undefined
let link: { phase: Phase } | undefined

/** Short breaks are nobody's business. */
function say(phase: Phase): void {
  if (phase.name === 'live') {
    clearTimeout(saying)
    saying = undefined
    status.hidden = true
  } else if (status.hidden) {
    if (phase.name !== 'off') saying ??= setTimeout(tell, PATIENCE_MS) // from the first try on, not the last
  } else if (phase.name === 'ended') tell()
}

function tell(): void {
  const now = link?.phase
  status.textContent = now?.name === 'ended' ? now.reason || 'This session has ended.' : 'Connecting…'
  status.hidden = false
}

const screen = {
  video: byId('video', HTMLVideoElement),
  canvas: byId('composite', HTMLCanvasElement),
  sound: button('sound'),
}
const showVideo = () => {
  link = showSession(screen, false, say)
}
const query = new URLSearchParams(location.search)
const drawn = query.get('render') === 'client'
if (query.get('via') === 'janus') link = showRelayed(screen, say)
else if (drawn) {
  const sayDrawn = (phase: Phase) => {
    link = { phase }
    say(phase)
  }
  void drawInstead(sessionOfPage(), screen.video, showVideo, sayDrawn)
} else showVideo()
