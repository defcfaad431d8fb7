import type { TradeType } from '../../foundation/market/event.ts'
import { isSymbol } from '../../foundation/market/fields.ts'
import { readSequenceStarts, type SequenceStart } from '../../foundation/store/meta.ts'
import { counted } from '../../foundation/telemetry/plural.ts'
import { finding, unchecked } from './findings.ts'
import type { Finding, NotChecked, QuotesReport } from './report-types.ts'
import { type CheckContext, timeBounds } from './scope.ts'

/** The ids of one symbol, type and epoch, as stored. */
export interface Sequence {
  readonly symbol: string
  readonly eventType: TradeType
  readonly epoch: number
  readonly rows: number
  readonly firstId: number
  readonly lastId: number
  /** The earliest trade time, as PostgreSQL takes it. */
  readonly firstTime: string
  /** The latest trade time, as PostgreSQL takes it. */
  readonly lastTime: string
  /** The smallest receipt minus event time; negative when this machine's clock is late. */
  readonly leastLatencyMs: number | null
  /**
   * The first id of the consumer, if older ids are stored. Older ids are allowed, and none of them
   * is missing.
   */
  readonly begins: number | null
  /** Rows below `begins`. */
  readonly rowsBefore: number
}

/**
 * Reads all rows once. The other checks read one sequence at a time, in the order of the unique
 * index. The latency is that of the streams, since a backfilled row has no event time.
 */
const SEQUENCES = `SELECT symbol, event_type AS "eventType", epoch, count(*)::float8 AS rows, min(trade_id)::float8 AS "firstId",
    max(trade_id)::float8 AS "lastId", min(trade_time) AS "firstTime", max(trade_time) AS "lastTime",
    extract(epoch FROM min(ingestion_timestamp - event_time))::float8 * 1000 AS "leastLatencyMs"
  FROM trades
  WHERE ($1::text[] IS NULL OR symbol = ANY($1)) AND trade_time >= $2::timestamptz AND trade_time < $3::timestamptz
  GROUP BY symbol, event_type, epoch ORDER BY symbol, event_type DESC, epoch`

const QUOTES = `SELECT symbol, count(*)::float8 AS rows, min(ingestion_timestamp) AS "firstAt", max(ingestion_timestamp) AS "lastAt"
  FROM book_ticker
  WHERE ($1::text[] IS NULL OR symbol = ANY($1)) AND ingestion_timestamp >= $2::timestamptz
    AND ingestion_timestamp < $3::timestamptz
  GROUP BY symbol ORDER BY symbol`

/**
 * Rows that fill a gap from before the consumer's start, or come from a retried dead letter of that
 * time.
 */
const BEFORE = `SELECT count(*)::float8 AS rows FROM trades
  WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND trade_id < $4
    AND trade_time >= $5::timestamptz AND trade_time < $6::timestamptz`

export async function readSequences(context: CheckContext): Promise<Sequence[]> {
  const { connection, scope } = context
  const starts = await readSequenceStarts(connection)
  const { rows } = await connection.query<
    Omit<Sequence, 'firstTime' | 'lastTime' | 'begins' | 'rowsBefore'> & { firstTime: Date; lastTime: Date }
  >(SEQUENCES, [scope.symbols, ...timeBounds(scope)])
  const sequences: Sequence[] = []
  for (const row of rows) {
    const { symbol, eventType, epoch, firstTime, lastTime } = row
    const begins = beginOf(starts, row, lastTime)
    sequences.push({
      ...row,
      firstTime: firstTime.toISOString(),
      lastTime: lastTime.toISOString(),
      begins,
      rowsBefore: begins === null ? 0 : await countBefore(context, [symbol, eventType, epoch, begins]),
    })
  }
  return sequences
}

/**
 * Null if nothing older is stored. Rows of an earlier epoch than that of the start are older,
 * unless one has a later time: then the epoch counter was lost and restarted at 0.
 */
function beginOf(
  starts: readonly SequenceStart[],
  { symbol, eventType, epoch, firstId }: Pick<Sequence, 'symbol' | 'eventType' | 'epoch' | 'firstId'>,
  lastTime: Date,
): number | null {
  const start = starts.find((one) => one.symbol === symbol && one.eventType === eventType)
  if (start === undefined || epoch > start.epoch) return null
  if (epoch < start.epoch) return lastTime.getTime() > start.timeMs ? null : Number.MAX_SAFE_INTEGER
  return firstId < start.id ? start.id : null
}

async function countBefore(
  { connection, scope }: CheckContext,
  sequence: readonly [symbol: string, eventType: string, epoch: number, begins: number],
): Promise<number> {
  const { rows } = await connection.query<{ rows: number }>(BEFORE, [...sequence, ...timeBounds(scope)])
  return rows[0]?.rows ?? 0
}

/** Reports the rows between which no id counts as missing. */
export function beforeStart(sequences: readonly Sequence[]): NotChecked[] {
  return sequences.flatMap(({ symbol, eventType, rowsBefore, firstId, lastId, begins }) => {
    if (begins === null) return []
    const to = Math.min(lastId, begins - 1)
    const what = `${counted(rowsBefore, `${eventType} row`)} from before the consumer's first start: ids may be missing there`
    return [unchecked(what, { symbol, count: rowsBefore, examples: [{ from: firstId, to, detail: '' }] })]
  })
}

/** Quotes by symbol. Another check counts `doubled`. */
export async function readQuotes({
  connection,
  scope,
}: CheckContext): Promise<Array<Omit<QuotesReport, 'doubled'>>> {
  const { rows } = await connection.query<{ symbol: string; rows: number; firstAt: Date; lastAt: Date }>(
    QUOTES,
    [scope.symbols, ...timeBounds(scope)],
  )
  return rows.map((row) => ({
    ...row,
    firstAt: row.firstAt.toISOString(),
    lastAt: row.lastAt.toISOString(),
  }))
}

/** Finds invalid symbols, and epochs whose previous epoch is absent. */
export function judgeSequences(sequences: readonly Sequence[], quoteSymbols: readonly string[]): Finding[] {
  const symbols = new Set([...sequences.map(({ symbol }) => symbol), ...quoteSymbols])
  const skipped = sequences.filter(
    ({ symbol, eventType, epoch }) =>
      epoch !== 0 &&
      !sequences.some(
        (other) => other.symbol === symbol && other.eventType === eventType && other.epoch === epoch - 1,
      ),
  )
  return [
    ...[...symbols]
      .filter((symbol) => !isSymbol(symbol))
      .map((symbol) => {
        const summary = 'is not a symbol: the consumer would not have stored it'
        return finding({ check: 'sequences', kind: 'symbol', severity: 'failure', symbol, summary })
      }),
    ...skipped.map(({ symbol, eventType, epoch }) => {
      const summary = `${eventType} rows have epoch ${epoch}, but none has epoch ${epoch - 1}`
      return finding({ check: 'sequences', kind: 'epoch', severity: 'notice', symbol, summary })
    }),
  ]
}
