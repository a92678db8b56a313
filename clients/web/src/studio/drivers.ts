/** What moves the avatar: a choice acts at once, and the big button is the next step of whoever has not chosen yet. */
import { cameraAllowed } from '../tracking/camera'
import type { Source } from '../wire/messages'
import type { Conductor } from './conductor'
import { button, byId, radios, region } from './dom'
import { needsCamera, nextStep, type Store } from './state'

export function mountDrivers(store: Store, conductor: Conductor): void {
  const choices = radios('source')
  const replay = byId('replay', HTMLSelectElement)
  const note = region('driver-note')
  const go = button('go')

  for (const choice of choices) choice.onchange = () => conductor.cast({ source: choice.value as Source })
  replay.onchange = () => conductor.cast({ source: 'replay', replay: replay.value })
  go.onclick = () => conductor.cast({ source: nextStep(store.state, cameraAllowed()).source })

  store.onChange((state, before) => {
    const { server, source, casting } = state
    for (const choice of choices) {
      const wanted = choice.value as Source
      const offered = server === null || server.sources.includes(wanted)
      choice.checked = wanted === source
      choice.disabled = !offered || (wanted === 'replay' && server?.replays.length === 0)
    }
    note.hidden = cameraAllowed() || !needsCamera(source)
    note.textContent = 'Browsers give the camera only to pages on https or localhost.'
    if (server?.replays.join() !== before.server?.replays.join() || replay.options.length === 0) {
      replay.replaceChildren(...(server?.replays ?? []).map((name) => new Option(titleOf(name), name)))
    }
    replay.value = state.replay ?? ''

    const step = nextStep(state, cameraAllowed())
    go.disabled = !step.enabled
    go.classList.toggle('primary', step.source !== 'idle')
    go.toggleAttribute('data-busy', casting)
    go.querySelector('span')!.textContent = step.label
    const symbol = step.source === 'idle' ? 'stop' : step.source === 'replay' ? 'play' : 'camera'
    go.querySelector('use')!.setAttribute('href', `#i-${symbol}`)
  })
}

/** "my_dance.npz" as people would write it. */
export function titleOf(replay: string): string {
  const words = replay.replace(/\.[a-z]+$/i, '').replaceAll(/[_-]+/g, ' ')
  return words.charAt(0).toUpperCase() + words.slice(1)
}
