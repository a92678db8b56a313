/** The studio page. Read conductor.ts for what it does, stage.ts for what it shows. */
import { dropToken } from '../live/token'
import { server } from '../wire/messages'
import { Conductor } from './conductor'
import { button, byId, copy, toast } from './dom'
import { mountDrivers } from './drivers'
import { mountFilms } from './films'
import { mountGiving } from './giving'
import { mountPeople } from './people'
import { pressed, type Shortcut } from './shortcuts'
import { Stage } from './stage'
import { defaultBackground, Store } from './state'
import { isDark, mountTheme } from './theme'
import { listShortcuts, mountToolbar } from './toolbar'

dropToken()
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
mountGiving(store)

const help = byId('help', HTMLDialogElement)
const share = button('share')
const obs = button('obs')
const copyLink = async (to: 'url' | 'obs_url', said: string) => {
  const { session } = store.state
  if (session === null) return
  let link: string
  try {
    link = new URL((await server.makeLink(session))[to], location.href).href
  } catch (error) {
    return toast((error as Error).message)
  }
  await copy(link, said)
}
const copyViewerLink = () => void copyLink('url', 'Viewer link copied')
const copyObsLink = () => void copyLink('obs_url', 'OBS link copied: add a browser source with it')
share.onclick = copyViewerLink
obs.onclick = copyObsLink
store.onChange(({ session }) => (share.hidden = obs.hidden = session === null))

const shortcuts: Shortcut[] = [
  ...mountToolbar(store, conductor, stage),
  { key: 'L', says: 'Copy a link for viewers', act: copyViewerLink },
  { key: 'O', says: 'Copy a link for OBS', act: copyObsLink },
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
