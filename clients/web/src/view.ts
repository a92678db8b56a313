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
  clearTimeout(saying)
  if (phase.name === 'live') status.hidden = true
  else if (phase.name !== 'off' && status.hidden) {
    saying = setTimeout(() => {
      const now = link?.phase
      status.textContent = now?.name === 'ended' ? now.reason || 'This session has ended.' : 'Connecting…'
      status.hidden = false
    }, PATIENCE_MS)
  }
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
else if (drawn) void drawInstead(sessionOfPage(), screen.video, showVideo)
else showVideo()
