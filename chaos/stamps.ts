import type { Database } from '../src/foundation/store/database.ts'
import type { WrongClock } from './clock-faults.ts'
import { uncovered, type Window } from './outages.ts'

/** Smaller differences may be a delay. */
const LATEST_MS = 30_000
/** A trade of a time so near to a step may have been stamped by either clock. One that waited longer must not be kept. */
const EITHER_MS = 2000
/** So near to a step windows and outages have an end of either clock. */
const EDGE_MS = 10_000
/** From the change of a clock to the first receipt with it, at most. */
const SET_MS = 1000
/** A smaller step is corrected without a word. */
const NOTED_STEP_MS = 1000
const SHOWN = 3

export interface StampCheck {
  /** Rows of trades that came over a stream, each with the exchange's time and ours. */
  readonly rows: number
  readonly wrong: number
  /** Times in which ingestion's clock was wrong, and of these those that the ledger has for every symbol. */
  readonly wrongClocks: number
  readonly inLedger: number
  readonly violations: readonly string[]
}

/**
 * Holds the receipt stamps of trades against the exchange's time of each: they differ by as much as ingestion's clock was
 * wrong just then. And looks in the ledger for a window of each step of that clock.
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
          `${wrong.length} trades have a wrong receipt stamp, such as ${wrong
            .slice(0, SHOWN)
            .map(({ name, late_ms }) => `${name} (${(late_ms / 1000).toFixed(1)} s after its time)`)
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
      `The ledger has no window of cause clock for every symbol near ${new Date(fromMs).toISOString()}, when ingestion's clock was set ${stepMs / 1000} s off.`,
    )
  return {
    rows: rows.length,
    wrong: wrong.length,
    wrongClocks: noted.length,
    inLedger: noted.length - missing.length,
    violations,
  }
}

/** Receipts that only the wrong clock can have stamped. What was received while it was wrong is in there, but for its ends. */
export function stampedOnlyBy({ fromMs, toMs, stepMs }: WrongClock): Window {
  const isApart = Math.abs(stepMs) > toMs - fromMs
  const [ahead, back] = isApart ? [stepMs, stepMs] : [Math.max(0, stepMs), Math.min(0, stepMs)]
  return { fromMs: fromMs + ahead + SET_MS, toMs: toMs + back - SET_MS }
}

/** Nothing need be entered where nothing was received with the wrong clock, or where all of it was refused and the process then killed. */
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

/** Whether a trade of that time can have been stamped so much later. */
export function isRight(eventMs: number, lateMs: number, clocks: readonly WrongClock[]): boolean {
  const near = clocks.filter(({ fromMs, toMs }) => eventMs > fromMs - EITHER_MS && eventMs < toMs + EITHER_MS)
  const inside = near.filter(({ fromMs, toMs }) => eventMs > fromMs + EITHER_MS && eventMs < toMs - EITHER_MS)
  const offsets =
    inside.length > 0 ? inside.map(({ stepMs }) => stepMs) : [0, ...near.map(({ stepMs }) => stepMs)]
  return offsets.some((offsetMs) => Math.abs(lateMs - offsetMs) < LATEST_MS)
}

/** Whether a window begins or ends near a time, as the right clock or the wrong one has it. */
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

/** Leaves out of `outages` what lies near to a time of a wrong clock: no window can be expected to have both ends right. */
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
