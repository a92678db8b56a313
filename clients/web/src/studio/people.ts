/** Photos in, avatars to choose from. */
import type { Avatar, Job } from '../wire/messages'
import type { Conductor } from './conductor'
import { byId, icon, region } from './dom'
import type { Store } from './state'

export function mountPeople(store: Store, conductor: Conductor): void {
  const input = byId('photo', HTMLInputElement)
  const list = region('people')
  const warnings = region('warnings')

  const take = (files: FileList | null | undefined) => {
    // browsers do not know every picture (HEIC) by its type; of what is none the server says so
    const photo = [...(files ?? [])].find(({ type }) => type.startsWith('image/')) ?? files?.[0]
    if (photo) void conductor.make(photo)
  }
  input.onchange = () => {
    take(input.files)
    input.value = ''
  }
  takeDrops(take)
  addEventListener('paste', ({ clipboardData }) => take(clipboardData?.files))

  let drawn = ''
  store.onChange(({ server, avatar, job }) => {
    input.disabled = job?.state === 'running'
    const shown = JSON.stringify([server?.avatars, server?.jobs, avatar])
    if (shown !== drawn) {
      drawn = shown
      const held = document.activeElement instanceof HTMLElement ? document.activeElement.dataset.avatar : undefined
      list.replaceChildren(
        ...(server?.jobs ?? []).map(making),
        ...(server?.avatars ?? []).map((person) => card(person, person.id === avatar, conductor)),
      )
      if (held) list.querySelector<HTMLElement>(`[data-avatar="${CSS.escape(held)}"]`)?.focus()
    }
    const notes = server?.avatars.find(({ id }) => id === avatar)?.warnings ?? []
    warnings.hidden = notes.length === 0
    region('warnings-title').textContent = notes.length === 1 ? 'A note on this avatar' : 'Notes on this avatar'
    region('warnings-list').replaceChildren(
      ...notes.map((note) => Object.assign(document.createElement('li'), { textContent: note })),
    )
  })
}

/** Somebody who is not there yet. */
function making({ name = '', stage, fraction }: Job): HTMLLIElement {
  const item = document.createElement('li')
  const person = Object.assign(document.createElement('div'), { className: 'person making' })
  const portrait = Object.assign(document.createElement('span'), { className: 'portrait' })
  portrait.style.setProperty('--done', String(fraction))
  portrait.textContent = `${Math.round(100 * fraction)} %`
  person.title = stage
  person.append(portrait, Object.assign(document.createElement('span'), { className: 'name', textContent: name }))
  item.append(person)
  return item
}

function card(person: Avatar, chosen: boolean, conductor: Conductor): HTMLLIElement {
  const item = document.createElement('li')
  const choose = document.createElement('button')
  choose.type = 'button'
  choose.className = 'person'
  choose.dataset.avatar = person.id
  choose.setAttribute('aria-pressed', String(chosen))
  choose.title = [person.name, `made by ${person.method}`].join(', ')
  choose.onclick = () => {
    if (!chosen) conductor.cast({ avatar: person.id })
  }
  const portrait = document.createElement(person.preview ? 'img' : 'span')
  portrait.className = 'portrait'
  if (portrait instanceof HTMLImageElement && person.preview) {
    portrait.src = person.preview
    portrait.alt = ''
    portrait.loading = 'lazy'
  }
  const name = document.createElement('span')
  name.className = 'name'
  name.textContent = person.name
  choose.append(portrait, name)
  item.append(choose)
  if (!person.method.startsWith('builtin')) {
    const remove = document.createElement('button')
    remove.type = 'button'
    remove.className = 'remove'
    remove.setAttribute('aria-label', `Delete ${person.name}`)
    remove.append(icon('close'))
    remove.onclick = () => {
      if (confirm(`Delete the avatar “${person.name}”?`)) void conductor.remove(person.id)
    }
    item.append(remove)
  }
  return item
}

/** Photos may be dropped anywhere on the page. */
function takeDrops(take: (files: FileList | undefined) => void): void {
  let depth = 0 // every element entered and left counts
  const brings = (event: DragEvent) => event.dataTransfer?.types.includes('Files') ?? false
  addEventListener('dragenter', (event) => {
    if (brings(event) && depth++ === 0) document.body.dataset.dragging = ''
  })
  addEventListener('dragleave', (event) => {
    if (brings(event) && --depth === 0) delete document.body.dataset.dragging
  })
  addEventListener('dragover', (event) => {
    if (brings(event)) event.preventDefault()
  })
  addEventListener('drop', (event) => {
    if (!brings(event)) return
    event.preventDefault()
    depth = 0
    delete document.body.dataset.dragging
    take(event.dataTransfer?.files)
  })
}
