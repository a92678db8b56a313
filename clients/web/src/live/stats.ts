/** What a viewer wants to know about the stream, from RTCPeerConnection.getStats(). */

export interface Counters {
  atMs: number
  bytes: number
  framesDecoded: number
  framesDropped: number
  width: number
  height: number
  jitterBufferS: number
  jitterBufferFrames: number
  decodeS: number
  /** Seconds that samples of sound waited in the buffer, of all of them together, and how many these were. */
  soundBufferS: number
  soundSamples: number
  /** The same of the loudspeaker's buffer. */
  playoutS: number
  playoutSamples: number
  rttS: number | null
}

export interface StreamStats {
  fps: number
  bitrateBps: number
  /** Frames that came but were not shown, since the last look. */
  dropped: number
  width: number
  height: number
  /** Network, buffer and decoder together, where no time code measures the whole; null while unknown. */
  pathMs: number | null
  /** How much longer sound is held here than pictures; null while nothing is heard. */
  soundLagMs: number | null
}

/** The numbers in use, out of a report; null before the first video arrives. */
export function readCounters(report: Iterable<[string, unknown]>, atMs: number): Counters | null {
  let video: Record<string, unknown> | undefined
  let sound: Record<string, unknown> = {}
  let playout: Record<string, unknown> = {}
  let rttS: number | null = null
  for (const [, entry] of report) {
    const stats = entry as Record<string, unknown>
    if (stats.type === 'inbound-rtp' && stats.kind === 'video') video = stats
    if (stats.type === 'inbound-rtp' && stats.kind === 'audio') sound = stats
    if (stats.type === 'media-playout') playout = stats
    if (stats.type === 'candidate-pair' && stats.nominated && typeof stats.currentRoundTripTime === 'number') {
      rttS = stats.currentRoundTripTime
    }
  }
  if (!video) return null
  const number = (key: string, of: Record<string, unknown> = video) => (typeof of[key] === 'number' ? of[key] : 0)
  return {
    atMs,
    bytes: number('bytesReceived'),
    framesDecoded: number('framesDecoded'),
    framesDropped: number('framesDropped'),
    width: number('frameWidth'),
    height: number('frameHeight'),
    jitterBufferS: number('jitterBufferDelay'),
    jitterBufferFrames: number('jitterBufferEmittedCount'),
    decodeS: number('totalDecodeTime'),
    soundBufferS: number('jitterBufferDelay', sound),
    soundSamples: number('jitterBufferEmittedCount', sound),
    playoutS: number('totalPlayoutDelay', playout),
    playoutSamples: number('totalSamplesCount', playout),
    rttS,
  }
}

/** What happened between two looks; null when they are not of one stream in order. */
export function compareCounters(before: Counters, now: Counters): StreamStats | null {
  const seconds = (now.atMs - before.atMs) / 1000
  const decoded = now.framesDecoded - before.framesDecoded
  const bytes = now.bytes - before.bytes
  if (seconds <= 0 || decoded < 0 || bytes < 0) return null
  const perFrame = (sum: number, frames: number) => (frames > 0 ? sum / frames : 0)
  const bufferS = perFrame(now.jitterBufferS - before.jitterBufferS, now.jitterBufferFrames - before.jitterBufferFrames)
  const decodeS = perFrame(now.decodeS - before.decodeS, decoded)
  const heard = now.soundSamples - before.soundSamples
  const soundS = perFrame(now.soundBufferS - before.soundBufferS, heard)
  const playoutS = perFrame(now.playoutS - before.playoutS, now.playoutSamples - before.playoutSamples)
  return {
    fps: decoded / seconds,
    bitrateBps: (8 * bytes) / seconds,
    dropped: Math.max(0, now.framesDropped - before.framesDropped),
    width: now.width,
    height: now.height,
    soundLagMs: heard > 0 ? 1000 * (soundS + playoutS - bufferS - decodeS) : null,
    pathMs: now.rttS === null || decoded === 0 ? null : 1000 * (now.rttS / 2 + bufferS + decodeS),
  }
}

export function median(values: readonly number[]): number | null {
  if (values.length === 0) return null
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[sorted.length >> 1]
}

export function formatBitrate(bps: number): string {
  return bps >= 1e6 ? `${(bps / 1e6).toFixed(1)} Mb/s` : `${Math.round(bps / 1e3)} kb/s`
}
