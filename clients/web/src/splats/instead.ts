/**
 * A session drawn by this page instead of shown as video, where that is possible; else, and when it ends, the video.
 *   ?render=client   for the bare viewer
 *   ?fallback=no     however slowly it is drawn: for measurements
 */
import { keepToken } from '../live/token'

const NOTE_MS = 8000

/** @param showVideo called once, if this page does not draw, or no longer */
export async function drawInstead(session: string, video: HTMLVideoElement, showVideo: () => void): Promise<void> {
  const canvas = Object.assign(document.createElement('canvas'), { ariaLabel: 'The avatar, live, drawn here' })
  canvas.id = 'splats'
  video.after(canvas)
  const giveUp = (reason: string) => {
    canvas.remove()
    delete document.body.dataset.drawn
    console.warn(`the avatar is shown as video: ${reason}`)
    note(`Shown as video: ${reason}`)
    showVideo()
  }
  try {
    const { drawSession } = await import('./session') // three and Spark: only for whoever needs them
    const patient = new URLSearchParams(location.search).get('fallback') === 'no'
    drawSession(
      { session, token: keepToken(), canvas, patient },
      {
        onShown: () => (document.body.dataset.drawn = 'here'),
        onGiveUp: giveUp,
      },
    )
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
