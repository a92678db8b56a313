/** All that the studio page knows, in one place, and who is told when it changes. */
import type { Phase } from '../live/phase'
import type { Framing, Job, Quality, ServerState, SessionState, Source } from '../wire/messages'
import type { Trouble } from './help_texts'

export type Background =
  | { kind: 'transparent' }
  | { kind: 'colour'; hex: string }
  /** A file of the user's, which stays in this page. */
  | { kind: 'picture'; url: string }
  /** The photo the avatar was made from, blurred. */
  | { kind: 'photo' }

export interface Settings {
  framing: Framing
  background: Background
  mirror: boolean
  quality: Quality
  probe: boolean
}

export interface StudioState {
  /** Null until it has answered. */
  server: ServerState | null
  serverDown: boolean
  /** Who is wanted, and what is to move them; the session follows. */
  avatar: string | null
  source: Source
  replay: string | null
  /** The motion capture rig that is wanted. */
  rig: string | null
  settings: Settings
  /** The photo being made into an avatar. */
  job: Job | null
  /** The session shown, if any, and what the server says of it. */
  session: string | null
  sessionState: SessionState | null
  phase: Phase
  /** The session is being made what is wanted. */
  casting: boolean
  camera: MediaStream | null
  /** Passed on to everybody who watches. */
  microphone: MediaStream | null
  tracking: 'off' | 'loading' | 'on'
  trouble: Trouble | null
}

/** What is behind an avatar where nobody has chosen: the first of them, in the dark another one. */
export const defaultBackground = (dark: boolean): Background => ({ kind: 'colour', hex: COLOURS[dark ? 3 : 0] })

export const COLOURS = ['#e9e5de', '#d3dfe8', '#f3c9b5', '#2a2724', '#123a36', '#00b140']

const NEEDS_CAMERA: readonly Source[] = ['browser', 'webcam']

/** What this page's camera is for: its points, its picture, both where the settings merge them, or nothing. */
export function cameraUses(source: Source, server: ServerState | null): Source[] {
  const merged = Object.values(server?.inputs.merged ?? {}).map((driver) => driver.source)
  return NEEDS_CAMERA.filter((use) => (source === 'merged' ? merged.includes(use) : source === use))
}

export const needsCamera = (source: Source, server: ServerState | null): boolean =>
  cameraUses(source, server).length > 0

const KEY = 'lhm-live'

/** What the next page starts with: choices only, and none that would be gone by then or belong to one avatar. */
function remember({ rig, settings: { background, mirror, quality } }: StudioState): string {
  const unchosen = [true, false].some((dark) => JSON.stringify(background) === JSON.stringify(defaultBackground(dark)))
  const kept = background.kind === 'picture' || unchosen ? undefined : background
  return JSON.stringify({ rig: rig ?? undefined, settings: { background: kept, mirror, quality } })
}

export function initialState(stored: string | null, dark: boolean): StudioState {
  const state: StudioState = {
    server: null,
    serverDown: false,
    avatar: null,
    source: 'idle',
    replay: null,
    rig: null,
    settings: {
      framing: 'full',
      background: defaultBackground(dark),
      mirror: true,
      quality: 'auto',
      probe: false,
    },
    job: null,
    session: null,
    sessionState: null,
    phase: { name: 'off' },
    casting: false,
    camera: null,
    microphone: null,
    tracking: 'off',
    trouble: null,
  }
  try {
    const { rig = null, settings } = JSON.parse(stored ?? '{}') as Partial<StudioState>
    return { ...state, rig, settings: { ...state.settings, ...settings } }
  } catch {
    return state
  }
}

export class Store {
  #state: StudioState
  #listeners: ((state: StudioState, before: StudioState) => void)[] = []

  constructor() {
    this.#state = initialState(localStorage.getItem(KEY), document.documentElement.dataset.theme === 'dark')
  }

  get state(): StudioState {
    return this.#state
  }

  set(change: Partial<StudioState>): void {
    const before = this.#state
    this.#state = { ...before, ...change }
    for (const listener of this.#listeners) listener(this.#state, before)
  }

  /** Start like this the next time. */
  remember(): void {
    localStorage.setItem(KEY, remember(this.#state))
  }

  /** The listener is also called at once. */
  onChange(listener: (state: StudioState, before: StudioState) => void): void {
    this.#listeners.push(listener)
    listener(this.#state, this.#state)
  }
}

/** The background the server draws: it knows colours and transparency; pictures are put behind in the page. */
export function serverBackground(background: Background): string {
  return background.kind === 'colour' ? background.hex.slice(1) : 'transparent'
}

const PICTURE_PIXELS = 600_000

/** Size of a picture in the shape of the stage: multiples of 16, as codecs like them. */
export function pictureSize(stageWidth: number, stageHeight: number): { width: number; height: number } {
  const aspect = Math.min(Math.max(stageWidth / stageHeight || 1, 9 / 16), 16 / 10)
  const round = (side: number) => 16 * Math.round(side / 16)
  return { width: round(Math.sqrt(PICTURE_PIXELS * aspect)), height: round(Math.sqrt(PICTURE_PIXELS / aspect)) }
}

/** What the one big button does now: a newcomer's next step. */
export function nextStep(
  { casting, server, avatar, source, replay }: StudioState,
  cameraAllowed: boolean,
): { label: string; source: Source; enabled: boolean } {
  const enabled = !casting && server?.avatars.some(({ id }) => id === avatar) === true
  if (source !== 'idle') return { label: 'Stop', source: 'idle', enabled: !casting }
  if (cameraAllowed || replay === null) return { label: 'Move it with my camera', source: 'browser', enabled }
  return { label: 'Play a recording', source: 'replay', enabled }
}

export function statusOf({ phase, server, serverDown, tracking, casting, job }: StudioState): {
  text: string
  tone: 'off' | 'busy' | 'good' | 'bad'
} {
  if (job?.state === 'running') return { text: 'Making an avatar', tone: 'busy' }
  switch (phase.name) {
    case 'live':
      if (tracking === 'loading') return { text: 'Loading tracking', tone: 'busy' }
      return casting ? { text: 'Changing over', tone: 'busy' } : { text: 'Live', tone: 'good' }
    case 'connecting':
      return { text: phase.attempt > 1 ? `Reconnecting, try ${phase.attempt}` : 'Connecting', tone: 'busy' }
    case 'waiting':
      return { text: 'Connection lost', tone: 'bad' }
    case 'ended':
      return { text: 'Ended', tone: 'off' }
    case 'off':
      if (serverDown) return { text: 'Server does not answer', tone: 'bad' }
      if (casting) return { text: 'Starting', tone: 'busy' }
      return server ? { text: 'Ready', tone: 'off' } : { text: 'Looking for the server', tone: 'busy' }
  }
}
