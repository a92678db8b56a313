/** How finely this page draws: as the screen is where that is fast enough, and more coarsely before it gives up. */

const SLOWEST_FPS = 20
/** Somewhat faster than it must be, or it would be too slow again soon. */
const AIM_FPS = 24
const LEAST_STEP = 0.8
/** Coarser than this the video is the better picture. */
export const COARSEST = 0.5

/**
 * The share of the screen's pixels, along each side, to go on with; null where fewer would not help.
 * @param detail the share that was drawn
 * @param fps how many such pictures a second
 */
export function nextDetail(detail: number, fps: number): number | null {
  if (fps >= SLOWEST_FPS) return detail
  if (detail <= COARSEST) return null
  // a picture takes about as long as it has pixels
  return Math.max(COARSEST, detail * Math.min(LEAST_STEP, Math.sqrt(fps / AIM_FPS)))
}
