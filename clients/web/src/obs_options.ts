/** What the address of the OBS page may ask for, behind the session. */

export interface ObsOptions {
  /** A colour to key out, RRGGBB; null: nothing, the page is transparent. */
  key: string | null
  /** Of the picture, CSS pixels. One alone follows from the other; without both it fills the source. */
  width: number | null
  height: number | null
  /** Where the shape of picture and place differ: all of it, or all of the place. */
  fit: 'contain' | 'cover'
  mirror: boolean
}

const KNOWN = ['bg', 'width', 'height', 'fit', 'mirror', 'audio', 'codec', 'probe', 'token']
const LARGEST = 8192

/** @throws Error that says what to write instead: nobody sees the console of OBS. */
export function readObsOptions(query: URLSearchParams): ObsOptions {
  const unknown = [...query.keys()].find((name) => !KNOWN.includes(name))
  if (unknown !== undefined) throw new Error(`?${unknown}= is not known here; there are ${KNOWN.join(', ')}`)
  const background = query.get('bg') ?? 'transparent'
  if (!/^(transparent|[0-9a-f]{6})$/i.test(background)) {
    throw new Error(`?bg=${background}: write six hex digits, as 00ff00, or transparent`)
  }
  const fit = query.get('fit') ?? 'contain'
  if (fit !== 'contain' && fit !== 'cover') throw new Error(`?fit=${fit}: write contain or cover`)
  const mirror = query.get('mirror') ?? '0'
  if (mirror !== '0' && mirror !== '1') throw new Error(`?mirror=${mirror}: write 0 or 1`)
  return {
    key: background === 'transparent' ? null : background,
    width: readPixels(query, 'width'),
    height: readPixels(query, 'height'),
    fit,
    mirror: mirror === '1',
  }
}

function readPixels(query: URLSearchParams, name: string): number | null {
  const text = query.get(name)
  if (text === null) return null
  const pixels = /^\d{1,4}$/.test(text) ? Number(text) : 0
  if (pixels < 1 || pixels > LARGEST) throw new Error(`?${name}=${text}: write a number of pixels, 1 to ${LARGEST}`)
  return pixels
}
