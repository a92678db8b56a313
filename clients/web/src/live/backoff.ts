const FIRST_MS = 500
const LONGEST_MS = 15_000

/** How long to wait before the nth try to reconnect (n from 1): doubling, and spread so that viewers do not come back at once. */
export function backoffMs(attempt: number, random: number = Math.random()): number {
  const longest = Math.min(FIRST_MS * 2 ** (attempt - 1), LONGEST_MS)
  return longest * (0.5 + 0.5 * random)
}
