/** What moves the avatar: a choice acts at once, and the big button is the next step of whoever has not chosen yet. */
import { cameraAllowed } from '../tracking/camera'
import { server, type Source } from '../wire/messages'
import type { Conductor } from './conductor'
import { button, byId, copy, radios, region } from './dom'
import { describeHeard, isListenedTo, poseUrl } from './inputs'
import { mountPlayer } from './player'
import { needsCamera, nextStep, type Store } from './state'

export function mountDrivers(store: Store, conductor: Conductor): void {
  const choices = radios('source')
  const note = region('driver-note')
  const go = button('go')
  const more = byId('more-drivers', HTMLDetailsElement)
  const rig = byId('rig', HTMLInputElement)
  const vmc = byId('vmc', HTMLInputElement)
  const extras = [...document.querySelectorAll<HTMLElement>('.extra')]
  /** A rig is to move it, but nobody has said which. */
  let asking = false
  /** Somebody has chosen here, and has not been shown yet what belongs to the choice. */
  let chosen = false

  mountPlayer(store, conductor)
  for (const choice of choices)
    choice.onchange = () => {
      const source = choice.value as Source
      asking = source === 'mqtt' && store.state.rig === null
      chosen = true
      if (source === 'mqtt') void offerRigs(rig)
      if (asking) {
        more.open = true
        draw()
        rig.focus()
      } else conductor.cast({ source })
    }
  rig.onfocus = () => void offerRigs(rig)
  byId('rig-form', HTMLFormElement).onsubmit = (event) => {
    event.preventDefault()
    asking = false
    conductor.cast({ source: 'mqtt', rig: rig.value })
  }
  button('pose-url-copy').onclick = () => void copy(region('pose-url').textContent ?? '', 'Address copied')
  vmc.onchange = () => conductor.control({ vmc: vmc.checked })
  go.onclick = () => conductor.cast({ source: nextStep(store.state, cameraAllowed()).source })

  function draw(): void {
    const { server: known, casting, sessionState, session, rig: wanted, ...state } = store.state
    const source = asking ? 'mqtt' : state.source
    const inputs = known?.inputs
    for (const choice of choices) {
      const offered = choice.value as Source
      choice.checked = offered === source
      choice.disabled =
        (known !== null && !known.sources.includes(offered)) || (offered === 'replay' && known?.replays.length === 0)
      if (offered === 'merged') choice.closest('label')!.hidden = Object.keys(inputs?.merged ?? {}).length === 0
    }
    for (const extra of extras) {
      extra.toggleAttribute('data-shown', extra.dataset.for === source)
      const line = extra.querySelector<HTMLElement>('.heard')
      if (!line || !inputs || extra.dataset.for !== source) continue
      const heardHz = sessionState?.source === source ? sessionState.heard_hz : 0
      line.hidden = asking
      line.toggleAttribute('data-heard', heardHz > 0)
      const text = describeHeard({ source, inputs, heardHz, rig: wanted, hostname: location.hostname })
      if (line.textContent !== text) line.textContent = text // readers say it once only
    }
    region('pose-url').textContent = session === null ? '' : poseUrl(new URL(location.href), session)
    vmc.checked = sessionState?.vmc ?? false
    vmc.disabled = sessionState === null
    region('vmc-to').textContent = inputs ? `VMC to ${inputs.vmc_to}, whatever moves it` : ''
    note.hidden = cameraAllowed() || !needsCamera(source, store.state.server)
    note.textContent = 'Browsers give the camera only to pages on https or localhost.'

    const step = nextStep(store.state, cameraAllowed())
    go.disabled = !step.enabled
    go.classList.toggle('primary', step.source !== 'idle')
    go.toggleAttribute('data-busy', casting)
    go.querySelector('span')!.textContent = step.label
    const symbol = step.source === 'idle' ? 'stop' : step.source === 'replay' ? 'play' : 'camera'
    go.querySelector('use')!.setAttribute('href', `#i-${symbol}`)
  }

  store.onChange((state, before) => {
    if (state.source !== before.source) asking = false
    // what drives must be in sight; whoever has closed it since wants it closed
    if (isListenedTo(state.source) && (state.source !== before.source || state === before)) more.open = true
    if (state.rig !== before.rig || state === before) rig.value = state.rig ?? ''
    draw()
    if (chosen && state.source !== before.source) {
      chosen = false
      document.querySelector('.extra[data-shown]')?.scrollIntoView({ block: 'nearest', behavior: 'smooth' })
    }
  })
}

/** Offer the rigs that the broker knows; a lone one is taken for the one that is meant. */
async function offerRigs(field: HTMLInputElement): Promise<void> {
  let rigs: string[]
  try {
    rigs = await server.rigs()
  } catch {
    return // choosing it says what is wrong with the broker
  }
  byId('rigs', HTMLDataListElement).replaceChildren(...rigs.map((name) => new Option(name, name)))
  if (rigs.length === 1 && field.value === '') field.value = rigs[0]
}
