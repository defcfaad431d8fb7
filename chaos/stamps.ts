import type { Database } from '../src/foundation/store/database.ts'
import type { WrongClock } from './clock-faults.ts'
import { uncovered, type Window } from './outages.ts'

/** Smaller differences may be delays. */
const LATEST_MS = 30_000
/**
 * Trades this close to a step may be stamped by either clock. Ingestion must discard trades that
 * waited longer.
 */
const EITHER_MS = 2000
/** Windows and outages this close to a step may have an end in either clock's time. */
const EDGE_MS = 10_000
/** Longest time from a clock change to the first receipt with it. */
const SET_MS = 1000
/** Smaller steps are corrected without a ledger entry. */
const NOTED_STEP_MS = 1000
const SHOWN = 3

export interface StampCheck {
  /** Stored trades that arrived over a stream. */
  readonly rows: number
  readonly wrong: number
  /** Clock faults of ingestion, and how many of them the ledger contains for every symbol. */
  readonly wrongClocks: number
  readonly inLedger: number
  readonly violations: readonly string[]
}

/**
 * Compares the receipt time of each trade with its exchange time: they must differ by the clock
 * offset of that moment. Also checks that the ledger has a window for each clock step.
 */
export async function checkStamps(
  database: Database,
  symbols: readonly string[],
  clocks: readonly WrongClock[],
): Promise<StampCheck> {
  const { rows } = await database.query<{ name: string; event_ms: number; late_ms: number }>(
    `SELECT symbol || ' ' || event_type || ' ' || trade_id AS name, (extract(epoch FROM event_time) * 1000)::float8 AS event_ms,
       (extract(epoch FROM ingestion_timestamp - event_time) * 1000)::float8 AS late_ms
     FROM trades WHERE source <> 'backfill' ORDER BY event_time`,
  )
  const wrong = rows.filter(({ event_ms, late_ms }) => !isRight(event_ms, late_ms, clocks))
  const violations =
    wrong.length === 0
      ? []
      : [
          `${wrong.length} trades have a wrong receipt time, such as ${wrong
            .slice(0, SHOWN)
            .map(({ name, late_ms }) => `${name} (${(late_ms / 1000).toFixed(1)} s after its exchange time)`)
            .join(', ')}.`,
        ]
  const noted = clocks.filter(({ stepMs }) => Math.abs(stepMs) > NOTED_STEP_MS)
  const windows = await clockWindows(database)
  const missing: WrongClock[] = []
  for (const clock of noted) {
    const left = symbols.filter(
      (symbol) => !windows.some((window) => window.symbol === symbol && touches(window, clock)),
    )
    if (await hasQuotes(database, left, stampedOnlyBy(clock))) missing.push(clock)
  }
  for (const { fromMs, stepMs } of missing)
    violations.push(
      `Some symbols have no ledger window with cause clock near ${new Date(fromMs).toISOString()}, when ingestion's clock was shifted by ${stepMs / 1000} s.`,
    )
  return {
    rows: rows.length,
    wrong: wrong.length,
    wrongClocks: noted.length,
    inLedger: noted.length - missing.length,
    violations,
  }
}

/**
 * Receipt times that only the wrong clock can produce: the period in its time, shortened at both
 * ends.
 */
export function stampedOnlyBy({ fromMs, toMs, stepMs }: WrongClock): Window {
  const isApart = Math.abs(stepMs) > toMs - fromMs
  const [ahead, back] = isApart ? [stepMs, stepMs] : [Math.max(0, stepMs), Math.min(0, stepMs)]
  return { fromMs: fromMs + ahead + SET_MS, toMs: toMs + back - SET_MS }
}

/**
 * No entry is needed if nothing was received with the wrong clock, or if Kafka refused all of it
 * and the process was killed.
 */
async function hasQuotes(
  database: Database,
  symbols: readonly string[],
  { fromMs, toMs }: Window,
): Promise<boolean> {
  const { rows } = await database.query(
    `SELECT FROM book_ticker WHERE symbol = ANY($1) AND ingestion_timestamp > to_timestamp($2::float8 / 1000)
       AND ingestion_timestamp < to_timestamp($3::float8 / 1000) LIMIT 1`,
    [symbols, fromMs, toMs],
  )
  return rows.length > 0
}

/** Whether a trade of this time can have been stamped this much later. */
export function isRight(eventMs: number, lateMs: number, clocks: readonly WrongClock[]): boolean {
  const near = clocks.filter(({ fromMs, toMs }) => eventMs > fromMs - EITHER_MS && eventMs < toMs + EITHER_MS)
  const inside = near.filter(({ fromMs, toMs }) => eventMs > fromMs + EITHER_MS && eventMs < toMs - EITHER_MS)
  const offsets =
    inside.length > 0 ? inside.map(({ stepMs }) => stepMs) : [0, ...near.map(({ stepMs }) => stepMs)]
  return offsets.some((offsetMs) => Math.abs(lateMs - offsetMs) < LATEST_MS)
}

/** Whether a window begins or ends near the fault, in the time of the right or the wrong clock. */
function touches(window: Window, { fromMs, toMs, stepMs }: WrongClock): boolean {
  return [window.fromMs, window.toMs].some((atMs) =>
    [0, stepMs].some((offsetMs) => atMs - offsetMs > fromMs - EDGE_MS && atMs - offsetMs < toMs + EDGE_MS),
  )
}

async function clockWindows(database: Database): Promise<Array<Window & { symbol: string }>> {
  const { rows } = await database.query<Window & { symbol: string }>(
    `SELECT symbol, (extract(epoch FROM from_time) * 1000)::float8 AS "fromMs", (extract(epoch FROM to_time) * 1000)::float8 AS "toMs"
     FROM gaps WHERE event_type = 'bookTicker' AND cause = 'clock'`,
  )
  return rows
}

/** Removes outages close to a clock fault: their windows need not have correct ends. */
export function apartFrom<Kind extends Window>(
  outages: readonly Kind[],
  clocks: readonly WrongClock[],
): Kind[] {
  const near = clocks.map(({ fromMs, toMs }) => ({ fromMs: fromMs - EDGE_MS, toMs: toMs + EDGE_MS }))
  return outages.filter((outage) => {
    const [left, ...more] = uncovered(outage, near)
    return more.length === 0 && left?.fromMs === outage.fromMs && left.toMs === outage.toMs
  })
}
