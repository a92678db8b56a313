/** How a recorded motion is played: which, where, how fast, once or over and over. */
import type { SessionState } from '../wire/messages'
import type { Conductor } from './conductor'
import { button, byId } from './dom'
import type { Store } from './state'

const SPEEDS = [0.25, 0.5, 1, 1.5, 2, 4]
const TICK_MS = 100
const SEEK_EVERY_MS = 80

type Played = Pick<SessionState, 'replay_s' | 'place_s' | 'speed' | 'loop'>

/** Where it is, so many seconds after the server has said where it was. */
export function placeAfter({ replay_s, place_s, speed, loop }: Played, seconds: number): number {
  const length = replay_s ?? 0
  const place = (place_s ?? 0) + seconds * speed
  return loop && length > 0 ? place % length : Math.min(place, length)
}

export function mountPlayer(store: Store, conductor: Conductor): void {
  const replay = byId('replay', HTMLSelectElement)
  const place = byId('place', HTMLInputElement)
  const text = byId('place-text', HTMLOutputElement)
  const speed = byId('speed', HTMLSelectElement)
  const loop = byId('loop', HTMLInputElement)
  const hold = button('hold')
  let toldMs = 0
  let soughtMs = 0
  let held = false
  /** Its speed before it was held. */
  let before = 1

  speed.replaceChildren(...SPEEDS.map((one) => new Option(`${one} ×`, String(one))))
  replay.onchange = () => conductor.cast({ source: 'replay', replay: replay.value })
  speed.onchange = () => conductor.control({ speed: Number(speed.value) })
  loop.onchange = () => conductor.control({ loop: loop.checked })
  hold.onclick = () => conductor.control({ speed: store.state.sessionState?.speed === 0 ? before : 0 })
  const seek = () => {
    soughtMs = performance.now()
    conductor.control({ seek_s: Number(place.value) })
  }
  place.oninput = () => {
    held = true
    show(Number(place.value))
    if (performance.now() - soughtMs > SEEK_EVERY_MS) seek()
  }
  place.onchange = () => {
    held = false
    seek()
  }

  const show = (seconds: number) => {
    const length = store.state.sessionState?.replay_s ?? 0
    text.value = `${seconds.toFixed(1)} / ${length.toFixed(1)} s`
  }
  const tick = () => {
    const { sessionState } = store.state
    if (!sessionState || held) return
    const now = placeAfter(sessionState, (performance.now() - toldMs) / 1000)
    place.value = String(now)
    show(now)
  }
  setInterval(() => store.state.source === 'replay' && tick(), TICK_MS)

  store.onChange(({ server, sessionState, ...state }, earlier) => {
    if (server?.replays.join() !== earlier.server?.replays.join() || replay.options.length === 0) {
      replay.replaceChildren(...(server?.replays ?? []).map((name) => new Option(titleOf(name), name)))
    }
    replay.value = state.replay ?? ''
    if (!sessionState || sessionState === earlier.sessionState) return
    toldMs = performance.now()
    place.max = String(sessionState.replay_s ?? 0)
    loop.checked = sessionState.loop
    if (sessionState.speed > 0) {
      before = sessionState.speed
      if (!SPEEDS.includes(before) && !speed.querySelector(`[value="${before}"]`))
        speed.append(new Option(`${before} ×`, String(before)))
      speed.value = String(before)
    }
    const paused = sessionState.speed === 0
    hold.setAttribute('aria-label', paused ? 'Play' : 'Pause')
    hold.querySelector('use')!.setAttribute('href', paused ? '#i-play' : '#i-pause')
    if (!held) tick()
  })
}

/** "my_dance.npz" as people would write it. */
export function titleOf(replay: string): string {
  const words = replay.replace(/\.[a-z]+$/i, '').replaceAll(/[_-]+/g, ' ')
  return words.charAt(0).toUpperCase() + words.slice(1)
}
