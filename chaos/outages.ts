/** A stretch of wall-clock time in milliseconds. */
export interface Window {
  readonly fromMs: number
  readonly toMs: number
}

/** A time in which no connection can have delivered bookTicker, and how we know. */
export interface Outage extends Window {
  readonly why: string
  /** Null: of all. */
  readonly symbol: string | null
  /** Only a silence of this length is noticed; null: any. */
  readonly noticedAfterMs: number | null
}

/** Ingestion drops its sockets when it has stood still for 5 s and its check, once a second, sees it. */
const SURELY_STALLED_MS = 7500
/** The watchdog of single streams acts after 30 s of silence; a stall that is held longer ends by that, or by a reconnect. */
const NOTICED_AFTER_MS = 30_000

/**
 * Keeps account of when nobody delivered: from what the exchange sees of its connections, and from what we did to
 * ingestion's process. Every one of these outages must be in the ledger.
 */
export class OutageBook {
  readonly #outages: Outage[] = []
  #lastAtMs: number | null = null
  #downSinceMs: number | null = null

  /** How many connections have streams now. To be called often: what happens between two calls is not seen. */
  observe(atMs: number, connections: number): void {
    if (connections === 0) this.#downSinceMs ??= atMs
    else if (this.#downSinceMs !== null) {
      // Only what was seen to be down at both ends surely was.
      this.#add(this.#downSinceMs, this.#lastAtMs ?? atMs, 'no connection was open')
      this.#downSinceMs = null
    }
    this.#lastAtMs = atMs
  }

  /** Ingestion's process was killed or stopped, and started again. */
  processDown(fromMs: number, toMs: number): void {
    this.#add(fromMs, toMs, 'ingestion was down')
  }

  /** Ingestion stood still. A short pause loses nothing. */
  processPaused(fromMs: number, toMs: number): void {
    if (toMs - fromMs >= SURELY_STALLED_MS) this.#add(fromMs, toMs, 'ingestion stood still')
  }

  /** Its bookTicker stream was silent on an open connection. Nothing tells a short silence from a quiet market. */
  streamStalled(symbol: string | null, fromMs: number, toMs: number): void {
    if (toMs - fromMs < NOTICED_AFTER_MS) return
    this.#outages.push({
      ...{ fromMs, toMs, symbol },
      why: 'the stream was stalled',
      noticedAfterMs: NOTICED_AFTER_MS,
    })
  }

  /** In the order in which they ended. What has not ended is not there. */
  list(): readonly Outage[] {
    return this.#outages
  }

  #add(fromMs: number, toMs: number, why: string): void {
    this.#outages.push({ fromMs, toMs, why, symbol: null, noticedAfterMs: null })
  }
}

/** The parts of `window` that none of `others` covers, in order. */
export function uncovered(window: Window, others: readonly Window[]): Window[] {
  const left: Window[] = []
  let { fromMs } = window
  for (const other of [...others].sort((a, b) => a.fromMs - b.fromMs)) {
    if (other.toMs <= fromMs || other.fromMs >= window.toMs) continue
    if (other.fromMs > fromMs) left.push({ fromMs, toMs: other.fromMs })
    fromMs = Math.max(fromMs, other.toMs)
  }
  if (fromMs < window.toMs) left.push({ fromMs, toMs: window.toMs })
  return left
}
