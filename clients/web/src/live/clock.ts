const KEPT = 20

/** The server's clock as seen from here, from pings: that of the quickest answer is the most exact. */
export class ServerClock {
  #samples: { rttMs: number; offsetMs: number }[] = []

  /** One ping sent and answered at these times of our clock, and the server's time in between. */
  add(sentMs: number, receivedMs: number, serverMs: number): void {
    const rttMs = receivedMs - sentMs
    if (!(rttMs >= 0) || !Number.isFinite(serverMs)) return
    this.#samples = [...this.#samples, { rttMs, offsetMs: serverMs - (sentMs + receivedMs) / 2 }].slice(-KEPT)
  }

  get best(): { rttMs: number; offsetMs: number } | null {
    return this.#samples.reduce<{ rttMs: number; offsetMs: number } | null>(
      (best, sample) => (best && best.rttMs <= sample.rttMs ? best : sample),
      null,
    )
  }
}

/** Milliseconds since 1970 by the monotonic clock, so that a jump of the wall clock cannot reach us. */
export const nowMs = (): number => performance.timeOrigin + performance.now()
