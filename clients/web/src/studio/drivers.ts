/** What moves the avatar, and the button that starts it. */
import { cameraAllowed } from '../tracking/camera'
import type { Source } from '../wire/messages'
import type { Conductor } from './conductor'
import { button, byId, radios, region } from './dom'
import { startAction, type Store } from './state'

export function mountDrivers(store: Store, conductor: Conductor): void {
  const choices = radios('source')
  const replay = byId('replay', HTMLSelectElement)
  const note = region('driver-note')
  const go = button('go')

  for (const choice of choices) choice.onchange = () => store.set({ source: choice.value as Source })
  replay.onchange = () => store.set({ replay: replay.value })
  go.onclick = () => void conductor[startAction(store.state).act]()

  store.onChange((state, before) => {
    const { server, source } = state
    const withoutCamera = !cameraAllowed()
    for (const choice of choices) {
      const wanted = choice.value as Source
      const offered = server === null || server.sources.includes(wanted)
      choice.checked = wanted === source
      choice.disabled = !offered || (wanted === 'replay' && server?.replays.length === 0)
    }
    note.hidden = !(withoutCamera && (source === 'browser' || source === 'webcam'))
    note.textContent = 'Browsers give the camera only to pages on https or localhost. Start to see what you can do.'
    if (server?.replays !== before.server?.replays || replay.options.length === 0) {
      replay.replaceChildren(...(server?.replays ?? []).map((name) => new Option(name, name)))
    }
    replay.value = state.replay ?? ''

    const { label, act, enabled } = startAction(state)
    go.disabled = !enabled
    go.classList.toggle('primary', act !== 'stop')
    go.querySelector('span')!.textContent = label
    go.querySelector('use')!.setAttribute('href', act === 'stop' ? '#i-stop' : '#i-play')
  })
}
