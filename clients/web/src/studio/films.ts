/** Films that the server has recorded, and their poses: to watch, to keep, to delete. */
import type { Recording } from '../wire/messages'
import type { Conductor } from './conductor'
import { icon, region } from './dom'
import type { Store } from './state'

export function mountFilms(store: Store, conductor: Conductor): void {
  const section = region('films-section')
  const list = region('films')
  let drawn = ''
  store.onChange(({ server }) => {
    const films = server?.recordings ?? []
    const shown = films.map(({ id }) => id).join()
    if (shown === drawn) return
    drawn = shown
    section.hidden = films.length === 0
    list.replaceChildren(...films.map((film) => row(film, conductor)))
  })
}

function row(film: Recording, conductor: Conductor): HTMLLIElement {
  const item = document.createElement('li')
  const link = Object.assign(document.createElement('a'), { href: film.url, target: '_blank', rel: 'noopener' })
  link.append(
    Object.assign(document.createElement('b'), { textContent: when(new Date(film.started_at)) }),
    Object.assign(document.createElement('small'), { textContent: formatBytes(film.bytes) }),
  )
  const remove = Object.assign(document.createElement('button'), { type: 'button', className: 'ghost' })
  remove.setAttribute('aria-label', `Delete the recording of ${when(new Date(film.started_at))}`)
  remove.append(icon('close'))
  remove.onclick = () => {
    if (confirm('Delete this recording?')) void conductor.removeRecording(film)
  }
  item.append(icon('play'), link, ...poses(film), remove)
  return item
}

function poses({ motion_url, motion_bytes, started_at }: Recording): HTMLAnchorElement[] {
  if (motion_url === null) return []
  const link = Object.assign(document.createElement('a'), { href: motion_url, download: '', textContent: 'poses' })
  link.title = `${formatBytes(motion_bytes)}; lhm-live render --pose renders them at any size, with anybody`
  link.setAttribute('aria-label', `Download the poses of ${when(new Date(started_at))}`)
  return [link]
}

const when = (date: Date) => date.toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' })

export function formatBytes(bytes: number): string {
  return bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.ceil(bytes / 1e3)} kB`
}
