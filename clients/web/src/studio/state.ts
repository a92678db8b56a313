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
  avatar: string | null
  source: Source
  replay: string | null
  settings: Settings
  /** The photo being made into an avatar. */
  job: Job | null
  /** The session shown, if any, and what the server says of it. */
  session: string | null
  sessionState: SessionState | null
  phase: Phase
  starting: boolean
  camera: MediaStream | null
  tracking: 'off' | 'loading' | 'on'
  trouble: Trouble | null
}

export const COLOURS = ['#e9e5de', '#d3dfe8', '#f3c9b5', '#2a2724', '#123a36', '#00b140']

const KEY = 'lhm-live'

/** What the next page starts with: choices only, and none that would be gone by then. */
function remember({ source, settings }: StudioState): string {
  const background = settings.background.kind === 'picture' ? { kind: 'colour', hex: COLOURS[0] } : settings.background
  return JSON.stringify({ source, settings: { ...settings, background, probe: false } })
}

export function initialState(stored: string | null, dark: boolean): StudioState {
  const state: StudioState = {
    server: null,
    serverDown: false,
    avatar: null,
    source: 'browser',
    replay: null,
    settings: {
      framing: 'half',
      background: { kind: 'colour', hex: COLOURS[dark ? 3 : 0] },
      mirror: true,
      quality: 'auto',
      probe: false,
    },
    job: null,
    session: null,
    sessionState: null,
    phase: { name: 'off' },
    starting: false,
    camera: null,
    tracking: 'off',
    trouble: null,
  }
  try {
    const { source, settings } = JSON.parse(stored ?? '{}') as Partial<StudioState>
    return { ...state, source: source ?? state.source, settings: { ...state.settings, ...settings } }
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
    if (change.settings || change.source) localStorage.setItem(KEY, remember(this.#state))
    for (const listener of this.#listeners) listener(this.#state, before)
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

/** What the start button does now. */
export function startAction(state: StudioState): { label: string; act: 'start' | 'stop' | 'switch'; enabled: boolean } {
  const { session, sessionState, avatar, source, replay, server, starting, job } = state
  const ready =
    !starting &&
    job?.state !== 'running' &&
    server?.avatars.some(({ id }) => id === avatar) === true &&
    (source !== 'replay' || replay !== null)
  if (session === null) return { label: starting ? 'Starting' : 'Start', act: 'start', enabled: ready }
  const same =
    sessionState === null ||
    (sessionState.avatar === avatar &&
      sessionState.source === source &&
      (source !== 'replay' || (sessionState.replay ?? null) === replay))
  return same
    ? { label: 'Stop', act: 'stop', enabled: true }
    : { label: 'Switch to this', act: 'switch', enabled: ready }
}

export function statusOf({ phase, server, serverDown, tracking, starting, job }: StudioState): {
  text: string
  tone: 'off' | 'busy' | 'good' | 'bad'
} {
  if (job?.state === 'running') return { text: 'Making an avatar', tone: 'busy' }
  if (starting) return { text: 'Starting', tone: 'busy' }
  switch (phase.name) {
    case 'live':
      return tracking === 'loading' ? { text: 'Loading tracking', tone: 'busy' } : { text: 'Live', tone: 'good' }
    case 'connecting':
      return { text: phase.attempt > 1 ? `Reconnecting, try ${phase.attempt}` : 'Connecting', tone: 'busy' }
    case 'waiting':
      return { text: 'Connection lost', tone: 'bad' }
    case 'ended':
      return { text: 'Ended', tone: 'off' }
    case 'off':
      if (serverDown) return { text: 'Server does not answer', tone: 'bad' }
      return server ? { text: 'Ready', tone: 'off' } : { text: 'Looking for the server', tone: 'busy' }
  }
}
