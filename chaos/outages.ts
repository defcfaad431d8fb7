/** A stretch of wall-clock time in milliseconds. */
export interface Window {
  readonly fromMs: number
  readonly toMs: number
}

/** A period in which no connection can have delivered bookTicker, and the evidence. */
export interface Outage extends Window {
  readonly why: string
  /** Null: all symbols. */
  readonly symbol: string | null
  /** Only silences of at least this length are detected; null: all. */
  readonly noticedAfterMs: number | null
}

/** Ingestion closes its sockets after it was paused for 5 s; its check runs once a second. */
const SURELY_STALLED_MS = 7500
/**
 * The stall detector of single streams acts after 30 s of silence, and thereby ends a longer stall,
 * unless a reconnect did.
 */
const NOTICED_AFTER_MS = 30_000

/**
 * Records when no connection delivered, from the exchange's view of its connections and from the
 * faults of ingestion's process. The ledger must contain each of these outages.
 */
export class OutageBook {
  readonly #outages: Outage[] = []
  #lastAtMs: number | null = null
  #downSinceMs: number | null = null

  /**
   * Takes the number of connections with streams. Call it often: changes between two calls go
   * unnoticed.
   */
  observe(atMs: number, connections: number): void {
    if (connections === 0) this.#downSinceMs ??= atMs
    else if (this.#downSinceMs !== null) {
      // Count only the time between the first and the last observation of no connection.
      this.#add(this.#downSinceMs, this.#lastAtMs ?? atMs, 'no connection was open')
      this.#downSinceMs = null
    }
    this.#lastAtMs = atMs
  }

  /** Records that ingestion's process was killed or stopped, and started again. */
  processDown(fromMs: number, toMs: number): void {
    this.#add(fromMs, toMs, 'ingestion was down')
  }

  /** Records that ingestion was paused. A short pause loses nothing. */
  processPaused(fromMs: number, toMs: number): void {
    if (toMs - fromMs >= SURELY_STALLED_MS) this.#add(fromMs, toMs, 'ingestion was paused')
  }

  /**
   * Records a silent bookTicker stream on an open connection. A short silence looks the same as a
   * quiet market.
   */
  streamStalled(symbol: string | null, fromMs: number, toMs: number): void {
    if (toMs - fromMs < NOTICED_AFTER_MS) return
    this.#outages.push({
      ...{ fromMs, toMs, symbol },
      why: 'the stream was stalled',
      noticedAfterMs: NOTICED_AFTER_MS,
    })
  }

  /** Outages in the order of their end, without those in progress. */
  list(): readonly Outage[] {
    return this.#outages
  }

  #add(fromMs: number, toMs: number, why: string): void {
    this.#outages.push({ fromMs, toMs, why, symbol: null, noticedAfterMs: null })
  }
}

/** Returns the parts of `window` that none of `others` covers, in order. */
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
