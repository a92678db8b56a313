/**
 * What the bare pages share: the session named by the page's address, shown for as long as the page is open.
 *   ?codec=vp8|h264   prefer that codec
 *   ?probe=1          ask for the time code and measure latency: window.lhm has all of it
 *   ?audio=1          play the driver's microphone, where the browser lets sound begin without a click
 *   ?token=…          where the server wants one
 */
import type { SessionState } from '../wire/messages'
import { Compositor } from './compositor'
import { Link } from './link'
import type { Codec } from './peer'
import type { Phase } from './phase'
import { keepToken } from './token'

const COME_BACK_MS = 5000

export interface Screen {
  video: HTMLVideoElement
  /** Turns sound on and off where there is any; only by the address where there is none. */
  sound?: HTMLButtonElement
  /** Where stacked frames are put together. */
  canvas: HTMLCanvasElement
}

/** The session that the page's address names. */
export const sessionOfPage = (): string => decodeURIComponent(location.pathname.split('/').filter(Boolean).at(-1) ?? '')

/** @param alpha ask for stacked frames whatever the session's background is */
export function showSession({ video, canvas, sound }: Screen, alpha: boolean, onPhase: (phase: Phase) => void): Link {
  const query = new URLSearchParams(location.search)
  const session = sessionOfPage()
  const token = keepToken()
  const codec = (['h264', 'vp8'] as Codec[]).find((known) => known === query.get('codec')) ?? null
  const probe = query.get('probe') === '1'
  let state: SessionState | null = null

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
    { session, role: 'view', token, video, alpha, codec, sound: true },
    {
      onPhase: (phase) => {
        if (phase.name === 'ended') setTimeout(() => link.start(), COME_BACK_MS) // it may begin again under this name
        onPhase(phase)
      },
      onState: (now) => {
        state = now
        if (sound) sound.hidden = !now.audio
        if (probe && !now.probe) link.control({ probe: true })
      },
      onStats: () => {},
      onNotice: (message) => console.warn(message),
    },
  )
  window.lhm = { drawToDisplay: link.drawToDisplay.all, glassToGlass: link.glassToGlass.all, phase: () => link.phase }
  link.start()
  offerSound(link, sound, query.get('audio') === '1')
  return link
}

/** Browsers let sound begin with a click, or where the user has allowed it, as OBS has. */
function offerSound(link: Link, button: HTMLButtonElement | undefined, atOnce: boolean): void {
  let on = false
  const turn = (wanted: boolean) => {
    on = wanted
    if (on) link.listen(() => turn(false))
    else link.mute()
    if (button) button.textContent = on ? 'Sound off' : 'Sound on'
  }
  if (button) button.onclick = () => turn(!on)
  if (atOnce) turn(true)
}

declare global {
  interface Window {
    /** For measurements: latencies in milliseconds, newest last. */
    lhm: { drawToDisplay: readonly number[]; glassToGlass: readonly number[]; phase: () => Phase }
  }
}
