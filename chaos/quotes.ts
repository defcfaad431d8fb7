import type { Database } from '../src/foundation/store/database.ts'
import { DEFAULT_SYMBOLS } from '../src/sandbox/simulator/market/instruments.ts'
import type { WrongClock } from './clock-faults.ts'
import { type Outage, uncovered, type Window } from './outages.ts'

/** A time in which quotes are known to have been lost or late without an outage, and of which symbol; null: of all. */
export interface Disturbance extends Window {
  readonly symbol: string | null
}

export interface QuoteCheck {
  readonly rows: number
  /** Outages that we know of, times symbols. */
  readonly outages: number
  /** Windows that the ledger has. */
  readonly windows: number
  /** Quotes that are stored more than once, under different stamps. */
  readonly doubled: number
  readonly violations: readonly string[]
}

/** The ledger counts in milliseconds, rows in microseconds. */
const ROUNDING_MS = 2
/** Frames of before an outage may be received, and stamped, so much later: longer, and ingestion must drop them. */
const LATE_MS = 6000
/** Ingestion may be without the processor for some seconds; standing still longer, it must say so. */
const LONGEST_SILENCE_MS = 8000
const SHOWN = 3

/**
 * Holds the ledger's windows of bookTicker against the outages that we know of, and against silences in what is stored:
 * each lies in a window, or in a disturbance that loses quotes on an open connection, which nothing can count.
 */
export async function checkQuotes(
  database: Database,
  symbols: readonly string[],
  outages: readonly Outage[],
  disturbances: readonly Disturbance[],
  wrongClocks: readonly WrongClock[] = [],
): Promise<QuoteCheck> {
  const violations: string[] = []
  const totals = { rows: 0, outages: 0, windows: 0, doubled: 0 }
  for (const symbol of symbols) {
    const figures = await figuresOf(database, symbol, wrongClocks)
    if (figures === null) {
      violations.push(`${symbol} bookTicker: nothing is stored.`)
      continue
    }
    const windows = await windowsOf(database, symbol)
    const within = outages.filter(
      ({ symbol: whose, fromMs, toMs }) =>
        (whose === null || whose === symbol) && fromMs > figures.firstMs && toMs < figures.lastMs,
    )
    for (const outage of within) {
      const missing = await notInLedger(database, symbol, outage, windows)
      if (missing === null) continue
      violations.push(
        `${symbol} bookTicker: ${describe(missing)} is not in the ledger, although ${outage.why} (${describe(outage)}).`,
      )
    }
    const known = [
      ...windows,
      ...disturbances.filter((each) => each.symbol === null || each.symbol === symbol),
    ]
    // Others may have nothing to say for as long.
    const stretches = DEFAULT_SYMBOLS.includes(symbol) ? await silencesOf(database, symbol, wrongClocks) : []
    const silences = stretches.flatMap((silence) =>
      uncovered(silence, known).filter((left) => left.toMs - left.fromMs >= LONGEST_SILENCE_MS),
    )
    if (silences.length > 0)
      violations.push(
        `${symbol} bookTicker: ${silences.length} silences have no cause and are not in the ledger, such as ${silences.slice(0, SHOWN).map(describe).join(', ')}.`,
      )
    if (figures.doubled > 0)
      violations.push(`${symbol} bookTicker: ${figures.doubled} quotes are stored more than once.`)
    totals.rows += figures.rows
    totals.doubled += figures.doubled
    totals.outages += within.length
    totals.windows += windows.length
  }
  return { ...totals, violations }
}

/** The stretch of an outage that no window covers although no quote was stored in it; null when there is none. */
async function notInLedger(
  database: Database,
  symbol: string,
  outage: Outage,
  windows: readonly Window[],
): Promise<Window | null> {
  const { rows } = await database.query<{ ms: number }>(
    `SELECT (extract(epoch FROM ingestion_timestamp) * 1000)::float8 AS ms FROM book_ticker
     WHERE symbol = $1 AND ingestion_timestamp BETWEEN to_timestamp($2::float8 / 1000) AND to_timestamp($3::float8 / 1000)
     ORDER BY 1`,
    [symbol, outage.fromMs, outage.toMs],
  )
  const moments = [outage.fromMs, ...rows.map(({ ms }) => ms), outage.toMs]
  for (const [index, toMs] of moments.entries()) {
    const fromMs = moments[index - 1]
    const isLast = index === moments.length - 1
    const shortestMs = outage.noticedAfterMs ?? (isLast ? ROUNDING_MS : LATE_MS)
    if (fromMs === undefined || toMs - fromMs < shortestMs) continue
    const [left] = uncovered({ fromMs, toMs }, windows).filter(
      (part) => part.toMs - part.fromMs > ROUNDING_MS,
    )
    if (left !== undefined) return left
  }
  return null
}

/** Quotes that were stamped with a clock that was right; `wrongTimes` are its parameters. */
const RIGHT_CLOCK = `NOT EXISTS (SELECT FROM unnest($2::float8[], $3::float8[]) AS wrong (from_ms, to_ms)
  WHERE ingestion_timestamp BETWEEN to_timestamp(from_ms / 1000) AND to_timestamp(to_ms / 1000))`

/** As the wrong clock counts. A small step stays among the right ones: their order is all that it changes. */
function wrongTimes(clocks: readonly WrongClock[]): [number[], number[]] {
  const far = clocks.filter(({ stepMs }) => Math.abs(stepMs) > LONGEST_SILENCE_MS)
  return [
    far.map(({ fromMs, stepMs }) => fromMs + stepMs - LATE_MS),
    far.map(({ toMs, stepMs }) => toMs + stepMs + LATE_MS),
  ]
}

async function figuresOf(database: Database, symbol: string, clocks: readonly WrongClock[]) {
  const { rows } = await database.query<{ rows: number; doubled: number; firstMs: number; lastMs: number }>(
    `SELECT count(*)::float8 AS rows, (count(*) - count(DISTINCT update_id))::float8 AS doubled,
       (extract(epoch FROM min(ingestion_timestamp) FILTER (WHERE ${RIGHT_CLOCK})) * 1000)::float8 AS "firstMs",
       (extract(epoch FROM max(ingestion_timestamp) FILTER (WHERE ${RIGHT_CLOCK})) * 1000)::float8 AS "lastMs"
     FROM book_ticker WHERE symbol = $1`,
    [symbol, ...wrongTimes(clocks)],
  )
  const [figures] = rows
  return figures === undefined || figures.rows === 0 ? null : figures
}

async function windowsOf(database: Database, symbol: string): Promise<Window[]> {
  const { rows } = await database.query<Window>(
    `SELECT (extract(epoch FROM from_time) * 1000)::float8 AS "fromMs", (extract(epoch FROM to_time) * 1000)::float8 AS "toMs"
     FROM gaps WHERE symbol = $1 AND event_type = 'bookTicker' AND from_time IS NOT NULL AND to_time IS NOT NULL`,
    [symbol],
  )
  return rows
}

/** Stretches of more than the longest silence between two stored quotes. */
async function silencesOf(
  database: Database,
  symbol: string,
  clocks: readonly WrongClock[],
): Promise<Window[]> {
  const { rows } = await database.query<Window>(
    `SELECT (extract(epoch FROM before) * 1000)::float8 AS "fromMs", (extract(epoch FROM at) * 1000)::float8 AS "toMs"
     FROM (SELECT ingestion_timestamp AS at, lag(ingestion_timestamp) OVER (ORDER BY ingestion_timestamp) AS before
       FROM book_ticker WHERE symbol = $1 AND ${RIGHT_CLOCK}) AS quotes
     WHERE at - before > make_interval(secs => $4)`,
    [symbol, ...wrongTimes(clocks), LONGEST_SILENCE_MS / 1000],
  )
  return rows
}

function describe({ fromMs, toMs }: Window): string {
  return `${new Date(fromMs).toISOString().slice(11, 23)} to ${new Date(toMs).toISOString().slice(11, 23)}`
}
