/** The self-test as a text to send to whoever helps; nothing secret is in it. */
import type { Verdict } from './verdict'

export function writeReport(
  results: readonly { title: string; verdict: Verdict | null }[],
  about: { page: URL; browser: string; server: string | null; at: Date },
): string {
  const lines = results.flatMap(({ title, verdict }) =>
    verdict
      ? [`${verdict.tone.padEnd(8)} ${title}: ${verdict.text}${verdict.detail ? ` (${verdict.detail})` : ''}`]
      : [`untested ${title}`],
  )
  return [
    `lhm-live self-test of ${about.at.toISOString()}`,
    `page     ${about.page.origin}${about.page.pathname}`, // its query may hold a token
    `server   ${about.server ?? 'unknown'}`,
    `browser  ${about.browser}`,
    '',
    ...lines,
    '',
  ].join('\n')
}
