import { isSymbol } from '../../foundation/market/fields.ts'
import { readSequenceStarts, type SequenceStart } from '../../foundation/store/meta.ts'
import { counted } from '../../foundation/telemetry/plural.ts'
import { finding, type Remark, unchecked } from './findings.ts'
import type { Quotes } from './quotes.ts'
import type { SequenceReport } from './report-types.ts'
import {
  type CheckContext,
  IN_DEPTH,
  IN_SEQUENCE,
  inScope,
  isoText,
  type Scope,
  scopeValues,
  sequenceValues,
} from './scope.ts'

/** The ids of one symbol, type and epoch, as stored. Other checks count the missing and doubled ones. */
export interface Sequence
  extends Omit<SequenceReport, 'missing' | 'explained' | 'unexplained' | 'saidFilled' | 'doubled'> {
  /** The earliest and the latest trade time, as ISO 8601 in UTC. */
  readonly firstTime: string
  readonly lastTime: string
  /** The first id of the consumer, if older ids are stored. None of the older ones is missing. */
  readonly begins: number | null
}

/**
 * Reads all rows once. The other checks read one sequence at a time, in the order of the unique
 * index. The latency is that of the streams, since a backfilled row has no event time.
 */
const SEQUENCES = `SELECT symbol, event_type AS "eventType", epoch, count(*)::float8 AS rows, min(trade_id)::float8 AS "firstId",
    max(trade_id)::float8 AS "lastId", ${isoText('min(trade_time)')} AS "firstTime", ${isoText('max(trade_time)')} AS "lastTime",
    extract(epoch FROM min(ingestion_timestamp - event_time))::float8 * 1000 AS "leastLatencyMs"
  FROM trades WHERE ${inScope('trade_time')} GROUP BY symbol, event_type, epoch ORDER BY symbol, event_type DESC, epoch`

/** The same of the changes of order books, each of which covers a range of ids. */
const OF_DEPTH = `SELECT symbol, 'depth' AS "eventType", epoch, count(*)::float8 AS rows, min(first_update_id)::float8 AS "firstId",
    max(last_update_id)::float8 AS "lastId", ${isoText('min(event_time)')} AS "firstTime", ${isoText('max(event_time)')} AS "lastTime",
    extract(epoch FROM min(ingestion_timestamp - event_time))::float8 * 1000 AS "leastLatencyMs"
  FROM depth_updates WHERE ${inScope('event_time')} GROUP BY symbol, epoch ORDER BY symbol, epoch`

/** Rows that fill a gap from before the consumer's start, or come from a retried dead letter. */
const BEFORE = {
  trades: `SELECT count(*)::float8 AS rows FROM trades WHERE ${IN_SEQUENCE} AND trade_id < $6`,
  depth: `SELECT count(*)::float8 AS rows FROM depth_updates WHERE ${IN_DEPTH} AND last_update_id < $6`,
}

export function readSequences(context: CheckContext): Promise<Sequence[]> {
  return readFrom(context, 'trades')
}

export function readDepthSequences(context: CheckContext): Promise<Sequence[]> {
  return readFrom(context, 'depth')
}

async function readFrom({ connection, scope }: CheckContext, of: 'trades' | 'depth'): Promise<Sequence[]> {
  const starts = await readSequenceStarts(connection)
  const { rows } = await connection.query<Omit<Sequence, 'begins' | 'beforeStart'>>(
    of === 'depth' ? OF_DEPTH : SEQUENCES,
    scopeValues(scope),
  )
  const sequences: Sequence[] = []
  for (const row of rows) {
    const begins = beginOf(starts, row)
    const before =
      begins === null
        ? null
        : await connection.query<{ rows: number }>(BEFORE[of], [...sequenceValues(scope, row), begins])
    sequences.push({ ...row, begins, beforeStart: before?.rows[0]?.rows ?? 0 })
  }
  return sequences
}

/**
 * Null if nothing older is stored. Rows of an earlier epoch than that of the start are older,
 * unless one has a later time: then the epoch counter was lost and restarted at 0.
 */
function beginOf(
  starts: readonly SequenceStart[],
  { symbol, eventType, epoch, firstId, lastTime }: Omit<Sequence, 'begins' | 'beforeStart'>,
): number | null {
  const start = starts.find((one) => one.symbol === symbol && one.eventType === eventType)
  if (start === undefined || epoch > start.epoch) return null
  if (epoch < start.epoch) return Date.parse(lastTime) > start.timeMs ? null : Number.MAX_SAFE_INTEGER
  return firstId < start.id ? start.id : null
}

/** Reports the rows between which no id counts as missing. */
export function beforeStart(sequences: readonly Sequence[]): Remark[] {
  return sequences.flatMap(({ symbol, eventType, beforeStart, firstId, lastId, begins }) => {
    if (begins === null) return []
    const to = Math.min(lastId, begins - 1)
    const what = `${counted(beforeStart, `${eventType} row`)} from before the consumer's first start: ids may be missing there`
    return [unchecked(what, { symbol, count: beforeStart, examples: [{ from: firstId, to, detail: '' }] })]
  })
}

/** Finds invalid symbols, and epochs whose previous epoch is absent. */
export function judgeSequences(sequences: readonly Sequence[], quotes: readonly Quotes[]): Remark[] {
  const symbols = new Set([...sequences, ...quotes].map(({ symbol }) => symbol))
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

/**
 * Assigns trades to aggTrades across epochs. Trade ids and aggTrade ids are two sequences, and the
 * exchange may restart only one, or both at different moments. Then an aggTrade of epoch 1 covers
 * trades of epoch 0, or the reverse, and a comparison by ids alone would use the wrong trades. The
 * trades of an aggTrade have its time, so the start times of the trades' epochs decide.
 */
export interface TradeEpochs {
  /** Start times of the trades' epochs after epoch 0, as PostgreSQL takes them. */
  readonly starts: readonly string[]
  /** From `from` to before `until`, trades have the aggTrade's epoch. Both may be infinite. */
  readonly from: string
  readonly until: string
  /** The trades of the same epoch, if any are stored. */
  readonly trades: Sequence | undefined
}

/**
 * Returns the epochs of trades for the aggTrades of one epoch.
 * @param sequences those of the audited range; at its start, the first trades do not begin an epoch
 */
export function tradeEpochs(
  sequences: readonly Sequence[],
  { fromMs }: Scope,
  { symbol, epoch }: Pick<Sequence, 'symbol' | 'epoch'>,
): TradeEpochs {
  const trades = sequences.filter((one) => one.symbol === symbol && one.eventType === 'trade')
  const startOf = (one: Sequence) => (fromMs !== null && one === trades[0] ? '-infinity' : one.firstTime)
  const own = trades.find((one) => one.epoch === epoch)
  const next = trades.find((one) => one.epoch > epoch)
  const timeOf = (one: Sequence | undefined) => (one === undefined ? 'infinity' : startOf(one))
  return {
    starts: trades.filter((one) => one.epoch > 0).map(startOf),
    // Without trades of this epoch, none of its aggTrades can be checked.
    from: epoch === 0 ? '-infinity' : timeOf(own),
    until: timeOf(next),
    trades: own,
  }
}
