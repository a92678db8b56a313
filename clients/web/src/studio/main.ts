/** The studio page. Read conductor.ts for what it does, stage.ts for what it shows. */
import { Conductor } from './conductor'
import { button, byId, toast } from './dom'
import { mountDrivers } from './drivers'
import { mountFilms } from './films'
import { mountPeople } from './people'
import { pressed, type Shortcut } from './shortcuts'
import { Stage } from './stage'
import { defaultBackground, Store } from './state'
import { isDark, mountTheme } from './theme'
import { listShortcuts, mountToolbar } from './toolbar'

mountTheme(button('theme'))
const store = new Store()
const stage = new Stage(store)
const conductor = new Conductor(store, {
  video: stage.video,
  self: stage.self,
  onStats: (stats) => stage.showStats(stats),
  onSample: (sample) => stage.showSample(sample),
})
stage.mount(conductor)
// the stage goes light and dark with the page as long as nobody has chosen another colour
addEventListener('themechange', () => {
  const { background } = store.state.settings
  const dark = isDark()
  if (JSON.stringify(background) === JSON.stringify(defaultBackground(!dark)))
    conductor.change({ background: defaultBackground(dark) })
})
mountPeople(store, conductor)
mountDrivers(store, conductor)
mountFilms(store, conductor)

const help = byId('help', HTMLDialogElement)
const share = button('share')
const copyLink = async () => {
  const { session } = store.state
  if (session === null) return
  const link = new URL(`/view/${encodeURIComponent(session)}`, location.href).href
  try {
    await navigator.clipboard.writeText(link)
    toast('Viewer link copied')
  } catch {
    toast(link) // no clipboard without a secure page
  }
}
share.onclick = () => void copyLink()
store.onChange(({ session }) => (share.hidden = session === null))

const shortcuts: Shortcut[] = [
  ...mountToolbar(store, conductor, stage),
  { key: 'L', says: 'Copy a link for viewers', act: () => void copyLink() },
  { key: '?', says: 'This help', act: () => (help.open ? help.close() : help.showModal()) },
]
listShortcuts(shortcuts)
button('help-open').onclick = () => help.showModal()
addEventListener('keydown', (event) => {
  const focus = document.activeElement
  const type = focus instanceof HTMLInputElement ? focus.type : undefined
  if (pressed(shortcuts, event, focus && { tagName: focus.tagName, type })) event.preventDefault()
})

void conductor.begin()
