/**
 * A session drawn by this page instead of shown as video, where that is possible; else, and when it ends, the video.
 *   ?render=client   for the bare viewer
 *   ?fallback=no     however slowly it is drawn: for measurements
 */
import type { Phase } from '../live/phase'
import { keepToken } from '../live/token'

const NOTE_MS = 8000

/**
 * @param showVideo called once, if this page does not draw, or no longer
 * @param onPhase told how it goes until then
 */
export async function drawInstead(
  session: string,
  video: HTMLVideoElement,
  showVideo: () => void,
  onPhase: (phase: Phase) => void,
): Promise<void> {
  const giveUp = (reason: string) => {
    delete document.body.dataset.drawn
    console.warn(`the avatar is shown as video: ${reason}`)
    note(`Shown as video: ${reason}`)
    showVideo()
  }
  try {
    const { drawSession } = await import('./session') // three and Spark: only for whoever needs them
    const patient = new URLSearchParams(location.search).get('fallback') === 'no'
    const say = (phase: Phase) => {
      if (phase.name === 'live') document.body.dataset.drawn = 'here'
      onPhase(phase)
    }
    drawSession({ session, token: keepToken(), video, patient }, { onPhase: say, onGiveUp: giveUp })
  } catch (error) {
    giveUp(`the page's part that draws did not load (${error instanceof Error ? error.message : error})`)
  }
}

function note(text: string): void {
  const small = Object.assign(document.createElement('p'), { className: 'note', textContent: text })
  small.role = 'status'
  document.body.append(small)
  setTimeout(() => small.remove(), NOTE_MS)
}
