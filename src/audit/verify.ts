import { countIds, type IdRange, subtract } from '../market/id-ranges.ts'
import { isFields } from '../market/payload.ts'
import type { Database, Queryable } from '../store/database.ts'

/**
 * True when all that speaks against an audit is ids that the ledger says are filled: what it says of them may have
 * overtaken their rows, which come through another partition. Looking again tells.
 */
export function mayBeSettling({ sequences, bookTickers, clean }: Audit): boolean {
  const only = sequences.every(
    ({ unexplained, saidFilled, doubled }) =>
      doubled.length === 0 && countIds(unexplained) === countIds(saidFilled),
  )
  return !clean && only && bookTickers.every(({ repeats }) => repeats === 0)
}

/** What was found of one symbol's ids of one type in one epoch. */
export interface SequenceAudit {
  readonly symbol: string
  readonly eventType: 'trade' | 'aggTrade'
  readonly epoch: number
  readonly rows: number
  readonly firstId: number
  readonly lastId: number
  /** Ids between first and last that are not stored, but in the ledger or among the dead letters. */
  readonly explained: number
  /** Ids between first and last that nothing explains. */
  readonly unexplained: readonly IdRange[]
  /** Those of the unexplained that the ledger says are filled: in Kafka, and perhaps only not stored yet. */
  readonly saidFilled: readonly IdRange[]
  /** Ids that are stored more than once, under different trade times. */
  readonly doubled: readonly number[]
}

export interface Audit {
  readonly sequences: readonly SequenceAudit[]
  readonly bookTickers: ReadonlyArray<{
    readonly symbol: string
    readonly rows: number
    readonly repeats: number
  }>
  /** True when nothing is missing without an explanation and nothing is doubled, quotes included. */
  readonly clean: boolean
  /** What this audit does not say. */
  readonly notChecked: readonly string[]
}

const NOT_CHECKED = [
  'messages that are in Kafka and not stored yet',
  'whether each aggTrade equals the sum of the trades it covers',
  'bookTicker outages: the ledger has them, and nothing counts quotes that an open connection lost',
]

/** The ids of a sequence in order, and those that do not follow their predecessor by one. */
const SEQUENCES = `SELECT symbol, event_type, epoch, count(*)::float8 AS rows, min(trade_id) AS first_id, max(trade_id) AS last_id
  FROM trades GROUP BY symbol, event_type, epoch ORDER BY symbol, event_type DESC, epoch`

const STEPS = `SELECT symbol, event_type, epoch, previous_id, trade_id FROM (
    SELECT symbol, event_type, epoch, trade_id,
      lag(trade_id) OVER (PARTITION BY symbol, event_type, epoch ORDER BY trade_id) AS previous_id
    FROM trades) AS ordered
  WHERE trade_id <> previous_id + 1`

const LEDGER = `SELECT symbol, event_type, epoch, from_id, to_id, status FROM gaps WHERE from_id IS NOT NULL`

const LETTERS = `SELECT payload FROM dead_letters WHERE resolved_at IS NULL AND payload IS NOT NULL`

const BOOK_TICKERS = `SELECT symbol, count(*)::float8 AS rows, (count(*) - count(DISTINCT update_id))::float8 AS repeats
  FROM book_ticker GROUP BY symbol ORDER BY symbol`

interface IdRow {
  readonly symbol: string
  readonly event_type: 'trade' | 'aggTrade'
  readonly epoch: number
}

/**
 * Audits what is stored: per symbol and type every id between the first and the last is there once, or the ledger
 * or a dead letter names it.
 */
export function verify(database: Database): Promise<Audit> {
  return database.transaction(async (connection) => {
    // Every statement sees the same rows.
    await connection.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY')
    return audit(connection)
  })
}

/** The same on a connection of the caller's, within its transaction. */
export async function audit(database: Queryable): Promise<Audit> {
  const sequences = await database.query<IdRow & { rows: number; first_id: string; last_id: string }>(
    SEQUENCES,
  )
  const steps = await database.query<IdRow & { previous_id: string; trade_id: string }>(STEPS)
  const ledger = await database.query<IdRow & { from_id: string; to_id: string; status: string }>(LEDGER)
  const letters = await database.query<{ payload: Buffer }>(LETTERS)
  const bookTickers = await database.query<{ symbol: string; rows: number; repeats: number }>(BOOK_TICKERS)

  const ranges = (rows: typeof ledger.rows) =>
    rows.map((row) => ({ key: keyOf(row), from: Number(row.from_id), to: Number(row.to_id) }))
  const filled = Map.groupBy(
    ranges(ledger.rows.filter(({ status }) => status === 'filled')),
    ({ key }) => key,
  )
  const explained = Map.groupBy(
    [
      ...ranges(ledger.rows.filter(({ status }) => status !== 'filled')),
      ...letters.rows.flatMap(({ payload }) => namedId(payload)),
    ],
    ({ key }) => key,
  )
  const stepsOf = Map.groupBy(steps.rows, keyOf)
  const audited = sequences.rows.map((row): SequenceAudit => {
    const own = (stepsOf.get(keyOf(row)) ?? []).map((step) => ({
      before: Number(step.previous_id),
      id: Number(step.trade_id),
    }))
    const missing = own
      .filter(({ before, id }) => id > before)
      .map(({ before, id }) => ({ from: before + 1, to: id - 1 }))
    const unexplained = subtract(missing, explained.get(keyOf(row)) ?? [])
    return {
      symbol: row.symbol,
      eventType: row.event_type,
      epoch: row.epoch,
      rows: row.rows,
      firstId: Number(row.first_id),
      lastId: Number(row.last_id),
      explained: countIds(missing) - countIds(unexplained),
      unexplained,
      saidFilled: subtract(unexplained, subtract(unexplained, filled.get(keyOf(row)) ?? [])),
      doubled: [...new Set(own.filter(({ before, id }) => id === before).map(({ id }) => id))],
    }
  })
  return {
    sequences: audited,
    bookTickers: bookTickers.rows,
    clean:
      audited.every(({ unexplained, doubled }) => unexplained.length === 0 && doubled.length === 0) &&
      bookTickers.rows.every(({ repeats }) => repeats === 0),
    notChecked: NOT_CHECKED,
  }
}

function keyOf({ symbol, event_type, epoch }: IdRow): string {
  return `${symbol} ${event_type} ${epoch}`
}

/** The id that a dead letter would have stored, where its payload still tells. */
function namedId(payload: Buffer): Array<IdRange & { readonly key: string }> {
  const data = parse(payload)
  if (!isFields(data)) return []
  const { e, s } = data
  if (e !== 'trade' && e !== 'aggTrade') return []
  const id = e === 'trade' ? data['t'] : data['a']
  if (typeof s !== 'string' || !Number.isSafeInteger(id)) return []
  return [{ key: keyOf({ symbol: s, event_type: e, epoch: 0 }), from: Number(id), to: Number(id) }]
}

function parse(payload: Buffer): unknown {
  try {
    const value: unknown = JSON.parse(payload.toString())
    // A rejected frame still has its envelope.
    return isFields(value) && isFields(value['data']) ? value['data'] : value
  } catch {
    return null
  }
}
