/** What the server and the page say to each other, and REST calls (docs: /docs on the server). */

export type Framing = 'full' | 'half' | 'head'
export type Source = 'browser' | 'webcam' | 'replay' | 'idle' | 'socket' | 'mqtt' | 'vmc' | 'facemocap' | 'merged'
export type Quality = 'auto' | 'low' | 'medium' | 'high'

export interface Avatar {
  id: string
  name: string
  /** URL of a picture of the avatar, if there is one. */
  preview: string | null
  method: string
  created_at: string
  warnings: string[]
  /** URL of the photo it was made from, for a blurred background, if the server keeps it. */
  backdrop?: string | null
}

/** A UDP port of the server's, and whom it listens to there. */
export interface Listening {
  host: string
  port: number
  senders: string[]
}

export type Part = 'body' | 'head' | 'face' | 'hands'

/** Where programs on the network have to send to. */
export interface Inputs {
  vmc: Listening
  /** Where sessions with `vmc` on send, as host:port. */
  vmc_to: string
  facemocap: Listening
  /** A phone that is asked to send. */
  phone: string | null
  broker: string
  tenant: string
  /** Who drives which part with source merged; empty where the settings say nothing. */
  merged: Partial<Record<Part, { source: Source; rig: string | null; replay: string | null }>>
}

export interface SessionSummary {
  id: string
  avatar: string
  source: Source
  viewers: number
  fps: number
}

export interface ServerState {
  version: string
  sessions: SessionSummary[]
  avatars: Avatar[]
  sources: Source[]
  replays: string[]
  ice_servers?: RTCIceServer[]
  inputs: Inputs
  /** Avatars in the making. */
  jobs: Job[]
  /** Films that are complete, the newest first. */
  recordings: Recording[]
}

export interface Recording {
  id: string
  started_at: string
  bytes: number
  url: string
  /** Its poses, to be rendered again; null: only the film was recorded. */
  motion_url: string | null
  motion_bytes: number
}

export interface Job {
  id?: string
  name?: string
  state: 'running' | 'done' | 'failed'
  stage: string
  /** Of the whole. */
  fraction: number
  message: string
  warnings: string[]
  avatar?: string
}

/** Fields of a session that the page can change. */
export interface SessionSettings {
  framing: Framing
  /** Six hex digits, or 'transparent'. */
  background: string
  mirror: boolean
  /** Where the camera stands, radians round the person; 0 sees the face. */
  yaw: number
  quality: Quality
  /** Whether frames carry the time code of streaming/time_code.py. */
  probe: boolean
  /** Whether the driver's microphone is passed on to everybody who watches. */
  audio: boolean
  /** Whether what moves it is sent on to VTuber software. */
  vmc: boolean
  /** Of a replay; 0 holds it. */
  speed: number
  loop: boolean
}

export interface SessionState extends SessionSettings {
  id: string
  avatar: string
  source: Source
  replay?: string | null
  rig: string | null
  /** Length of the replay and the place in it, seconds. */
  replay_s: number | null
  place_s: number | null
  /** Samples a second of whoever moves it. */
  heard_hz: number
  /** Size of the picture; a stacked frame is twice as high. */
  width: number
  height: number
  fps: number
  viewers: number
  /** What is being recorded on the server. */
  recording: string | null
  /** Whether viewers may have the avatar, to draw it themselves. */
  share_avatar: boolean
  /** Which relay of the server's it goes to. */
  relay: string | null
}

/** Who is shown, and what moves them. */
export interface Cast {
  avatar: string
  source: Source
  replay?: string
  rig?: string
}

export type Control = Partial<SessionSettings> & { calibrate?: true; seek_s?: number }

export interface Report {
  fps: number
  glass_to_glass_ms: number | null
  draw_to_display_ms: number | null
  bitrate_bps: number
  dropped: number
  width: number
  height: number
  /** How much longer sound is held here than pictures. */
  sound_lag_ms: number | null
}

export type ClientMessage =
  | { type: 'offer'; sdp: string }
  | { type: 'candidate'; candidate: RTCIceCandidateInit | null }
  | ({ type: 'control' } & Control)
  | ({ type: 'report' } & Report)

export type ServerMessage =
  /** First of all: by which servers to look for paths, this time. */
  | { type: 'ice'; servers: RTCIceServer[] }
  | { type: 'answer'; sdp: string }
  | { type: 'candidate'; candidate: RTCIceCandidateInit | null }
  | ({ type: 'state' } & SessionState)
  | { type: 'error'; code: string; message: string }
  | { type: 'bye'; reason: string }

/** An answer of the server that says what went wrong. */
export class ServerError extends Error {
  readonly status: number
  readonly code: string

  constructor(status: number, code: string, message: string) {
    super(message)
    this.status = status
    this.code = code
  }
}

async function call<T>(path: string, init?: RequestInit): Promise<T> {
  let response: Response
  try {
    response = await fetch(path, init)
  } catch {
    throw new ServerError(0, 'unreachable', 'The server does not answer.')
  }
  const text = await response.text()
  if (response.ok) return (text ? JSON.parse(text) : undefined) as T
  let error: { code?: string; message?: string } = {}
  try {
    error = (JSON.parse(text) as { error?: typeof error }).error ?? {}
  } catch {
    // not ours: a proxy's page, perhaps
  }
  const status = `${response.status} ${response.statusText}`.trim()
  throw new ServerError(response.status, error.code ?? 'http', error.message ?? `The server answered ${status}.`)
}

const json = (method: string, body: unknown): RequestInit => ({
  method,
  headers: { 'Content-Type': 'application/json' },
  body: JSON.stringify(body),
})

/** By what others may watch: paths, with a token where one is needed. */
export interface ViewerLink {
  url: string
  obs_url: string
  /** ISO 8601; null: never. */
  expires_at: string | null
}

export interface NewSession extends Cast {
  width: number
  height: number
}

const at = (session: string) => `/api/sessions/${encodeURIComponent(session)}`

export const server = {
  state: () => call<ServerState>('/api/state'),
  /** Rigs that the broker knows of now. */
  rigs: () => call<string[]>('/api/rigs'),
  job: (id: string) => call<Job>(`/api/jobs/${encodeURIComponent(id)}`),
  deleteAvatar: (id: string) => call<void>(`/api/avatars/${encodeURIComponent(id)}`, { method: 'DELETE' }),
  startSession: (wish: NewSession & Partial<SessionSettings>) =>
    call<{ id: string }>('/api/sessions', json('POST', wish)),
  recast: (session: string, cast: Cast) => call<SessionState>(at(session), json('PATCH', cast)),
  endSession: (session: string) => call<void>(at(session), { method: 'DELETE' }),
  makeLink: (session: string) => call<ViewerLink>(`${at(session)}/links`, { method: 'POST' }),
  giveAvatar: (session: string, share_avatar: boolean) =>
    call<SessionState>(at(session), json('PATCH', { share_avatar })),
  startRecording: (session: string) => call<{ id: string }>(`${at(session)}/recording`, { method: 'POST' }),
  stopRecording: (session: string) => call<Recording>(`${at(session)}/recording`, { method: 'DELETE' }),
  deleteRecording: ({ url }: Recording) => call<void>(url, { method: 'DELETE' }),
  uploadPhoto: (photo: File) => {
    const form = new FormData()
    form.append('photo', photo)
    return call<{ job: string }>('/api/avatars', { method: 'POST', body: form })
  },
}

/** Follow a job to its end, telling each new state of it. */
export async function followJob(
  id: string,
  onProgress: (job: Job) => void,
  { intervalMs = 250, wait = sleep }: { intervalMs?: number; wait?: (ms: number) => Promise<void> } = {},
): Promise<Job> {
  let misses = 0
  for (;;) {
    try {
      const job = await server.job(id)
      misses = 0
      onProgress(job)
      if (job.state !== 'running') return job
    } catch (error) {
      // the server may be busy or restarting; a job it does not know is lost for good
      if (!(error instanceof ServerError) || error.status === 404 || ++misses > 20) throw error
    }
    await wait(intervalMs * (1 + misses))
  }
}

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))
