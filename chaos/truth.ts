import { countIds, type IdRange, normalise, subtract } from '../src/foundation/market/id-ranges.ts'
import type { Database } from '../src/foundation/store/database.ts'
import type { Exchange } from '../src/sandbox/simulator/exchange-server.ts'
import { microsecondsOf } from '../src/sandbox/simulator/server/time-units.ts'

type TradeType = 'trade' | 'aggTrade'

/** Ids that the exchange denied over REST during a fault; wall-clock milliseconds. */
export interface DeniedIds extends IdRange {
  readonly symbol: string
  readonly ids: TradeType
  readonly fromMs: number
  readonly toMs: number
}

/** Ids that the ledger lists as not filled, and since when. */
interface LostIds extends IdRange {
  readonly closedMs: number | null
}

/** Ingestion may act on a denial this long after it ends. */
const ACTED_UPON_MS = 10_000

/** Result of the comparison. */
export interface TruthCheck {
  /** Rows equal to the exchange's. */
  readonly rows: number
  /** Missing ids that the ledger lists as lost, while REST denied them. */
  readonly denied: number
  readonly violations: readonly string[]
}

interface Row {
  readonly trade_id: string
  readonly text: string
}

const CHUNK = 20_000
const SHOWN = 3

const ROWS = `SELECT trade_id, concat_ws(' ', price, quantity, is_buyer_maker,
    (extract(epoch FROM trade_time) * 1000000)::bigint, first_trade_id, last_trade_id) AS text
  FROM trades WHERE symbol = $1 AND event_type = $2 AND trade_id BETWEEN $3 AND $4 ORDER BY trade_id`

/**
 * Compares every stored trade and aggTrade with the exchange's. Each id between the first and the
 * last must be stored once with the exact price, quantity, time and side, or be listed in the
 * ledger as not filled.
 */
export async function checkTrades(
  database: Database,
  { history }: Pick<Exchange, 'history'>,
  denied: readonly DeniedIds[],
): Promise<TruthCheck> {
  const violations: string[] = []
  let rows = 0
  let deniedCount = 0
  for (const symbol of history.symbols) {
    for (const type of ['trade', 'aggTrade'] as const) {
      const found = await compare(database, history, symbol, type)
      const lost = await unfilled(database, symbol, type)
      const deniedHere = denied.filter((one) => one.symbol === symbol && one.ids === type)
      const unexplained = subtract(found.missing, lost)
      const undenied = lost.flatMap((one) =>
        subtract(
          [one],
          deniedHere.filter((each) => explains(each, one)),
        ),
      )
      rows += found.rows
      deniedCount += countIds(found.missing) - countIds(unexplained)
      violations.push(...found.violations)
      if (found.rows === 0) violations.push(`${symbol} ${type}: nothing is stored.`)
      if (unexplained.length > 0)
        violations.push(
          `${symbol} ${type}: ${shown(unexplained)} are neither stored nor in the ledger as lost.`,
        )
      if (undenied.length > 0)
        violations.push(
          `${symbol} ${type}: ${shown(undenied)} are in the ledger as not filled, although REST has them.`,
        )
    }
  }
  return { rows, denied: deniedCount, violations }
}

async function compare(
  database: Database,
  history: Exchange['history'],
  symbol: string,
  type: TradeType,
): Promise<{ rows: number; missing: IdRange[]; violations: string[] }> {
  const { rows: bounds } = await database.query<{ first: string | null; last: string | null }>(
    'SELECT min(trade_id) AS first, max(trade_id) AS last FROM trades WHERE symbol = $1 AND event_type = $2',
    [symbol, type],
  )
  const [first, last] = [Number(bounds[0]?.first ?? 0), Number(bounds[0]?.last ?? -1)]
  const { rows: units } = await database.query(
    "SELECT FROM meta WHERE key = 'time_unit' AND value = 'microsecond'",
  )
  const toUs = units.length > 0 ? microsecondsOf : (ms: number) => ms * 1000
  const missing: IdRange[] = []
  const doubled: number[] = []
  const different: string[] = []
  let rows = 0
  for (let from = first; from <= last; from += CHUNK) {
    const to = Math.min(last, from + CHUNK - 1)
    const stored = (await database.query<Row>(ROWS, [symbol, type, from, to])).rows
    const byId = new Map<number, string>()
    for (const { trade_id, text } of stored) {
      const id = Number(trade_id)
      if (byId.has(id)) doubled.push(id)
      byId.set(id, text)
    }
    for (const { id, text } of truth(history, symbol, type, from, to, toUs)) {
      const row = byId.get(id)
      byId.delete(id)
      if (row === undefined) missing.push({ from: id, to: id })
      else if (row === text) rows++
      else different.push(`${id} is "${row}", expected "${text}"`)
    }
    for (const [id, row] of byId) different.push(`${id} is "${row}", but was never traded`)
  }
  const violations: string[] = []
  if (doubled.length > 0)
    violations.push(
      `${symbol} ${type}: ${doubled.length} ids are stored twice, such as ${doubled.slice(0, SHOWN)}.`,
    )
  if (different.length > 0)
    violations.push(
      `${symbol} ${type}: ${different.length} rows differ from the exchange: ${different.slice(0, SHOWN).join('; ')}.`,
    )
  return { rows, missing: normalise(missing), violations }
}

/** The exchange's trades, in the format of `ROWS`. */
function truth(
  history: Exchange['history'],
  symbol: string,
  type: TradeType,
  from: number,
  to: number,
  toUs: (ms: number) => number,
) {
  return history.events(type, symbol, from, to).map((one) => ({
    id: one.id,
    text: [
      ...[exact(one.price), exact(one.quantity), flag(one.isBuyerMaker), toUs(one.tradeTime)],
      ...(type === 'aggTrade' ? [one.firstTradeId, one.lastTradeId] : []),
    ].join(' '),
  }))
}

const flag = (value: boolean) => (value ? 't' : 'f')

/** Formats a number as `numeric(20,8)` does. */
function exact(decimal: string): string {
  const [whole = '0', fraction = ''] = decimal.split('.')
  return `${whole}.${fraction.padEnd(8, '0')}`
}

/** Whether ids were abandoned while they were denied. */
function explains({ fromMs, toMs }: DeniedIds, { closedMs }: LostIds): boolean {
  return closedMs !== null && closedMs >= fromMs && closedMs <= toMs + ACTED_UPON_MS
}

async function unfilled(database: Database, symbol: string, type: TradeType): Promise<LostIds[]> {
  const { rows } = await database.query<{ from_id: string; to_id: string; closed_at: Date | null }>(
    `SELECT from_id, to_id, closed_at FROM gaps
     WHERE symbol = $1 AND event_type = $2 AND status <> 'filled' AND from_id IS NOT NULL`,
    [symbol, type],
  )
  return rows.map(({ from_id, to_id, closed_at }) => ({
    from: Number(from_id),
    to: Number(to_id),
    closedMs: closed_at?.getTime() ?? null,
  }))
}

function shown(ranges: readonly IdRange[]): string {
  const more = ranges.length > SHOWN ? ' and others' : ''
  const first = ranges.slice(0, SHOWN).map(({ from, to }) => (from === to ? `${from}` : `${from}..${to}`))
  return `${countIds(ranges)} ids (${first.join(', ')}${more})`
}
