/** The controls of the picture: how it is framed, what is behind it, and what to keep of it. */
import type { Framing, Quality } from '../wire/messages'
import type { Conductor } from './conductor'
import { button, byId, radios, region, toast } from './dom'
import { fileName, Recorder, save, saveFrom } from './recorder'
import { mountMicrophone } from './microphone'
import { Scene } from './scene'
import type { Shortcut } from './shortcuts'
import type { Stage } from './stage'
import { COLOURS, needsCamera, type Background, type Store } from './state'

const CALIBRATE = 'Relax your face and look at the camera'

/** Wire the toolbar up; returns what keys do the same. */
export function mountToolbar(store: Store, conductor: Conductor, stage: Stage): Shortcut[] {
  const scene = new Scene(stage.video, stage.source)
  const running = () => store.state.phase.name === 'live'
  const whenRunning = (act: () => void) => () => {
    if (running()) act()
  }

  const frame = (framing: Framing) => whenRunning(() => conductor.change({ framing }))
  for (const choice of radios('framing')) choice.onchange = frame(choice.value as Framing)
  const mirror = whenRunning(() => conductor.change({ mirror: !store.state.settings.mirror }))
  button('mirror').onclick = mirror
  for (const choice of radios('quality')) choice.onchange = () => conductor.change({ quality: choice.value as Quality })
  const probe = whenRunning(() => conductor.change({ probe: !store.state.settings.probe }))
  byId('probe', HTMLInputElement).onchange = probe
  const calibrate = whenRunning(() =>
    stage.countDown(3, CALIBRATE, () => {
      conductor.calibrate()
      toast('Calibrated to your face')
    }),
  )
  button('calibrate').onclick = calibrate

  const snapshot = whenRunning(() => void keepPicture(scene))
  button('snapshot').onclick = snapshot
  const record = mountRecording(store, conductor, scene, stage)
  const speak = mountMicrophone(store, conductor)
  const pip = whenRunning(() => void showInPicture(scene, stage))
  button('pip').onclick = pip
  button('pip').hidden = !document.pictureInPictureEnabled
  const fullscreen = () =>
    void (document.fullscreenElement ? document.exitFullscreen() : region('stage').requestFullscreen())
  button('fullscreen').onclick = fullscreen
  button('fullscreen').hidden = !document.fullscreenEnabled

  const nextBackground = mountBackgrounds(store, conductor)
  for (const id of ['background', 'quality']) placeMenu(region(`${id}-menu`), button(`${id}-open`))

  store.onChange(({ settings, phase, source, server }) => {
    region('toolbar').inert = phase.name !== 'live'
    for (const choice of radios('framing')) choice.checked = choice.value === settings.framing
    for (const choice of radios('quality')) choice.checked = choice.value === settings.quality
    button('mirror').ariaPressed = String(settings.mirror)
    byId('probe', HTMLInputElement).checked = settings.probe
    button('calibrate').disabled = !needsCamera(source, server)
    if (phase.name !== 'live') for (const id of ['background-menu', 'quality-menu']) region(id).hidePopover()
  })

  return [
    { key: 'Space', says: 'Move it, or stop', act: () => button('go').click() },
    { key: '1', says: 'Whole body', act: frame('full') },
    { key: '2', says: 'Half body', act: frame('half') },
    { key: '3', says: 'Head', act: frame('head') },
    { key: 'M', says: 'Mirror', act: mirror },
    { key: 'B', says: 'Next background', act: whenRunning(nextBackground) },
    { key: 'C', says: 'Calibrate', act: () => !button('calibrate').disabled && calibrate() },
    { key: 'S', says: 'Snapshot', act: snapshot },
    { key: 'R', says: 'Record', act: record },
    { key: 'A', says: 'Microphone on or off: everybody who watches hears it', act: speak },
    { key: 'P', says: 'Picture in picture', act: pip },
    { key: 'F', says: 'Full screen', act: fullscreen },
    { key: 'T', says: 'Measure latency', act: probe },
  ]
}

function mountBackgrounds(store: Store, conductor: Conductor): () => void {
  const choose = (background: Background) => conductor.change({ background })
  const transparent = Object.assign(document.createElement('button'), {
    type: 'button',
    className: 'checker',
    ariaLabel: 'Transparent',
    title: 'Transparent',
    onclick: () => choose({ kind: 'transparent' }),
  })
  const colours = COLOURS.map((hex) => {
    const swatch = Object.assign(document.createElement('button'), {
      type: 'button',
      ariaLabel: `Colour ${hex}`,
      title: hex,
      onclick: () => choose({ kind: 'colour', hex }),
    })
    swatch.style.background = hex
    swatch.dataset.hex = hex
    return swatch
  })
  const own = Object.assign(document.createElement('label'), { className: 'own', title: 'Another colour' })
  const picker = Object.assign(document.createElement('input'), { type: 'color', ariaLabel: 'Another colour' })
  picker.oninput = () => choose({ kind: 'colour', hex: picker.value })
  own.append(picker)
  region('swatches').replaceChildren(transparent, ...colours, own)

  const file = byId('background-picture', HTMLInputElement)
  file.onchange = () => {
    const picture = file.files?.[0]
    const { background } = store.state.settings
    if (background.kind === 'picture') URL.revokeObjectURL(background.url)
    if (picture) choose({ kind: 'picture', url: URL.createObjectURL(picture) })
    file.value = ''
  }
  const photo = button('background-photo')
  photo.onclick = () => choose({ kind: 'photo' })

  const hasPhoto = () =>
    store.state.server?.avatars.some(({ id, backdrop }) => id === store.state.avatar && backdrop) ?? false
  store.onChange(({ settings: { background } }) => {
    transparent.ariaPressed = String(background.kind === 'transparent')
    for (const swatch of colours) {
      swatch.ariaPressed = String(background.kind === 'colour' && background.hex === swatch.dataset.hex)
    }
    photo.disabled = !hasPhoto()
    photo.title = photo.disabled ? 'The server keeps no photo of this avatar' : ''
  })

  const ring: Background[] = [
    ...COLOURS.map((hex): Background => ({ kind: 'colour', hex })),
    { kind: 'transparent' },
    { kind: 'photo' },
  ]
  return () => {
    const offered = ring.filter(({ kind }) => kind !== 'photo' || hasPhoto())
    const now = JSON.stringify(store.state.settings.background)
    choose(offered[(offered.findIndex((one) => JSON.stringify(one) === now) + 1) % offered.length])
  }
}

/**
 * The server keeps the packets that viewers get, which costs nothing; but a picture that this page puts behind the
 * avatar, or transparency, only this page can record.
 */
function mountRecording(store: Store, conductor: Conductor, scene: Scene, stage: Stage): () => void {
  const lamp = region('recording')
  const toggle = button('record')
  let recorder: Recorder | null = null
  let clock: ReturnType<typeof setInterval> | undefined

  const light = (startedMs: number) => {
    const show = () => {
      const seconds = Math.floor((performance.now() - startedMs) / 1000)
      lamp.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`
    }
    show()
    clearInterval(clock)
    clock = setInterval(show, 500)
    lamp.hidden = false
    toggle.ariaPressed = 'true'
  }
  const dark = () => {
    clearInterval(clock)
    lamp.hidden = true
    toggle.ariaPressed = 'false'
  }
  const end = async () => {
    if (!recorder) return
    const ended = recorder
    recorder = null
    dark()
    const film = await ended.stop()
    scene.release()
    save(film, fileName(film.type, new Date()))
    toast('Recording saved')
  }
  const begin = () => {
    const { kind } = store.state.settings.background
    const started = new Recorder(scene.stream(), stage.stacked && kind === 'transparent')
    recorder = started
    light(started.startedMs)
  }
  const fetchFilm = async () => {
    const film = await conductor.stopRecording()
    if (!film) return
    saveFrom(film.url, `lhm-live ${film.id}.mp4`)
    toast('Recording saved; the server keeps it too')
  }
  const act = () => {
    const { sessionState, phase, settings } = store.state
    if (recorder) void end()
    else if (sessionState?.recording) void fetchFilm()
    else if (phase.name === 'live') void (settings.background.kind === 'colour' ? conductor.startRecording() : begin())
  }
  toggle.onclick = act
  store.onChange(({ session, sessionState }, before) => {
    if (session === null) void end()
    const recording = sessionState?.recording ?? null
    if (recording === (before.sessionState?.recording ?? null) || recorder) return
    if (recording) light(performance.now())
    else dark()
  })
  return act
}

async function keepPicture(scene: Scene): Promise<void> {
  const picture = await scene.snapshot()
  if (!picture) return
  save(picture, fileName(picture.type, new Date()))
  toast('Picture saved')
}

/** The video itself where it is opaque; what the compositor makes of it where it is not. */
async function showInPicture(scene: Scene, stage: Stage): Promise<void> {
  if (document.pictureInPictureElement) return document.exitPictureInPicture()
  if (!stage.stacked) return void (await stage.video.requestPictureInPicture())
  const video = Object.assign(document.createElement('video'), { muted: true, srcObject: scene.stream() })
  video.onleavepictureinpicture = () => scene.release()
  await video.play()
  await video.requestPictureInPicture()
}

/** Open a menu above the button that opens it, wherever that is. */
function placeMenu(menu: HTMLElement, opener: HTMLElement): void {
  menu.addEventListener('toggle', () => {
    opener.ariaExpanded = String(menu.matches(':popover-open'))
    if (!menu.matches(':popover-open')) return
    const { left, width, top } = opener.getBoundingClientRect()
    const most = innerWidth - menu.offsetWidth - 12
    menu.style.left = `${Math.max(12, Math.min(left + width / 2 - menu.offsetWidth / 2, most))}px`
    menu.style.top = `${Math.max(12, top - menu.offsetHeight - 14)}px`
  })
}

/** The keys of the help page. */
export function listShortcuts(shortcuts: readonly Shortcut[]): void {
  region('keys').replaceChildren(
    ...shortcuts.map(({ key, says }) => {
      const row = document.createElement('div')
      const term = document.createElement('dt')
      term.append(Object.assign(document.createElement('kbd'), { textContent: key }))
      row.append(term, Object.assign(document.createElement('dd'), { textContent: says }))
      return row
    }),
  )
}
