import type { Database } from '../src/foundation/store/database.ts'
import { DEFAULT_SYMBOLS } from '../src/sandbox/simulator/market/instruments.ts'
import type { WrongClock } from './clock-faults.ts'
import { type Outage, uncovered, type Window } from './outages.ts'

/** A period in which quotes were lost or late without an outage, for one symbol; null: for all. */
export interface Disturbance extends Window {
  readonly symbol: string | null
}

export interface QuoteCheck {
  readonly rows: number
  /** Known outages times symbols. */
  readonly outages: number
  /** Windows in the ledger. */
  readonly windows: number
  /** Quotes stored more than once, with different receipt times. */
  readonly doubled: number
  readonly violations: readonly string[]
}

/** The ledger uses milliseconds, the rows microseconds. */
const ROUNDING_MS = 2
/**
 * Frames sent before an outage may be received this much later. Ingestion must discard frames that
 * are later still.
 */
const LATE_MS = 6000
/** Ingestion may lack CPU time for a few seconds; it must record a longer pause. */
const LONGEST_SILENCE_MS = 8000
const SHOWN = 3

/**
 * Compares the ledger's windows of bookTicker with the known outages, and with silences in the
 * stored quotes. Each silence must lie in a window, or in a disturbance that loses quotes on an
 * open connection, which cannot be detected.
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
    // Less traded symbols may be silent that long without a fault.
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

/** Returns the part of an outage that has no stored quote and no window; null if there is none. */
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

/** Selects quotes stamped by a right clock; `wrongTimes` provides its parameters. */
const RIGHT_CLOCK = `NOT EXISTS (SELECT FROM unnest($2::float8[], $3::float8[]) AS wrong (from_ms, to_ms)
  WHERE ingestion_timestamp BETWEEN to_timestamp(from_ms / 1000) AND to_timestamp(to_ms / 1000))`

/**
 * Periods in the wrong clock's time. Small steps are ignored: they only change the order of quotes.
 */
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

/** Returns the periods between two stored quotes that exceed the longest allowed silence. */
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
