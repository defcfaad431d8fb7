import type { ArchiveReader } from '../../foundation/archive/archive-reader.ts'
import { ArchiveSnapshot, type RowRange } from '../../foundation/archive/archive-snapshot.ts'
import { quoted } from '../../foundation/archive/duckdb.ts'
import { ARCHIVE_TABLES } from '../../foundation/archive/tables.ts'
import { countUnstored } from '../../foundation/kafka/read-range.ts'
import { isTradeType } from '../../foundation/market/event.ts'
import { GAP } from '../../foundation/market/gap.ts'
import type { IdRow } from '../../foundation/market/gap-requests.ts'
import { type IdRange, subtract } from '../../foundation/market/id-ranges.ts'
import { isoOfUs } from '../../foundation/market/time-unit.ts'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import type { DailyFile, DailyType } from './daily-file.ts'
import { type HistoryStore, storedRow } from './history-store.ts'

const DAY_MS = 86_400_000
/** The times of a gap are those of neighbouring trades, and ids do not increase strictly with time. */
const PADDING_MS = 60 * 60_000

const GAP_COLUMNS = `gap_id, revision, symbol, event_type, epoch, from_id::DOUBLE AS from_id, to_id::DOUBLE AS to_id,
  epoch_ms(from_time)::DOUBLE AS from_time, epoch_ms(to_time)::DOUBLE AS to_time, cause, status, reason,
  epoch_ms(detected_at)::DOUBLE AS detected_at, epoch_ms(updated_at)::DOUBLE AS updated_at,
  epoch_ms(closed_at)::DOUBLE AS closed_at`

/**
 * Reads from the files of an archive. Each call sees the archive as it is then: rows are only added,
 * so what an earlier call has seen is still there.
 */
export function archiveHistory(reader: ArchiveReader): HistoryStore {
  const { duckDb } = reader
  const tableOf = (type: DailyType) => ARCHIVE_TABLES[type]
  const gapRows = <Row>(select: (relation: string) => string) =>
    reader.read(async (snapshot) => duckDb.rows<Row>(select(await snapshot.textRelation('gaps'))))
  /** The ids of a range that are stored. */
  const idsIn = (type: DailyType, range: RowRange, { from, to }: IdRange, epoch: number) =>
    reader.read(async (snapshot) => {
      const rows = await snapshot.relation(tableOf(type).name, range)
      return duckDb.rows<IdRange>(
        `SELECT min(trade_id)::DOUBLE AS "from", max(trade_id)::DOUBLE AS "to" FROM (
           SELECT trade_id, trade_id - row_number() OVER (ORDER BY trade_id) AS run FROM (
             SELECT DISTINCT trade_id FROM (${rows}) WHERE trade_id BETWEEN ${from} AND ${to} AND epoch = ${epoch}))
         GROUP BY run ORDER BY 1`,
      )
    })
  return {
    identity: async () => reader.mark,
    async unstored(ends) {
      const { chains } = await ArchiveSnapshot.take(reader.store)
      const stored = chains.map(({ partition, head }) => ({
        ...partition,
        nextOffset: head?.nextOffset ?? 0,
      }))
      return countUnstored(stored, ends)
    },
    async *rowsOf(file) {
      await using snapshot = await ArchiveSnapshot.take(reader.store)
      const tiles = file.type === 'aggTrade' ? 'first_trade_id, last_trade_id' : 'NULL, NULL'
      try {
        const rows = await snapshot.relation(tableOf(file.type).name, dayOf(file))
        const texts = duckDb.texts(
          `SELECT trade_id, price, quantity, epoch_us(trade_time), is_buyer_maker, ${tiles}, source FROM (${rows}) ORDER BY trade_id`,
        )
        for await (const portion of texts) yield portion.rows.map(storedRow)
      } catch (error) {
        if ((await snapshot.missingFiles()).length === 0) throw error
        throw new TapelineError('ARCHIVE', 'Compaction removed files while they were read', {
          fix: 'Run the command again.',
          cause: error,
        })
      }
    },
    async *idsOf(file, range, epoch) {
      yield await idsIn(file.type, dayOf(file, DAY_MS), range, epoch)
    },
    async epochAt(symbol, type, timeUs) {
      const at = `TIMESTAMPTZ ${quoted(isoOfUs(timeUs))}`
      const of = `symbol = ${quoted(symbol)} AND event_type = ${quoted(type)}`
      const [begun] = await gapRows<{ epoch: number | null }>(
        (gaps) =>
          `SELECT max(epoch) AS epoch FROM (${gaps}) WHERE ${of} AND cause = 'reset' AND to_time <= ${at}`,
      )
      return Math.max(0, begun?.epoch ?? 0, (await lastEpoch(reader, symbol, type, timeUs, at)) ?? 0)
    },
    async gapsOf({ symbol, eventType, epoch }) {
      const rows = await gapRows<object>(
        (gaps) => `SELECT ${GAP_COLUMNS} FROM (${gaps})
          WHERE symbol = ${quoted(symbol)} AND event_type = ${quoted(eventType)} AND epoch = ${epoch} AND from_id IS NOT NULL
          ORDER BY from_id, gap_id`,
      )
      return rows.map((row) => GAP.parse(row)).flatMap(idRow)
    },
    async missingOf({ symbol, eventType, epoch }, ranges) {
      if (eventType === 'blockTrade') throw new Error('Block trades have no daily files')
      const missing: IdRange[][] = []
      for (const { from, to, fromMs, toMs } of ranges) {
        const range = {
          symbols: [symbol],
          fromMs: fromMs === null ? null : fromMs - PADDING_MS,
          toMs: toMs === null ? null : toMs + PADDING_MS,
        }
        const stored = await idsIn(eventType, range, { from, to }, epoch)
        missing.push(subtract([{ from, to }], stored))
      }
      return missing
    },
  }
}

/** Returns the epoch of the last trade until a time; null if there is none. */
function lastEpoch(
  reader: ArchiveReader,
  symbol: string,
  type: DailyType,
  timeUs: number,
  at: string,
): Promise<number | null> {
  const { name } = ARCHIVE_TABLES[type]
  return reader.read(async (snapshot) => {
    const dates = (await snapshot.dates(name)).filter((date) => Date.parse(date) * 1000 <= timeUs)
    for (const date of dates.reverse()) {
      const { list, pending } = await snapshot.day(name, date)
      if (pending.length === 0 && !Object.hasOwn(list?.symbols ?? {}, symbol)) continue
      const fromMs = Date.parse(date)
      const rows = await snapshot.relation(name, { symbols: [symbol], fromMs, toMs: fromMs + DAY_MS })
      const [last] = await reader.duckDb.rows<{ epoch: number }>(
        `SELECT epoch FROM (${rows}) WHERE trade_time <= ${at} ORDER BY trade_time DESC, epoch DESC LIMIT 1`,
      )
      if (last !== undefined) return last.epoch
    }
    return null
  })
}

/** @param aroundMs before the day and after it */
function dayOf({ symbol, date }: DailyFile, aroundMs = 0): RowRange {
  const startMs = Date.parse(date)
  return { symbols: [symbol], fromMs: startMs - aroundMs, toMs: startMs + DAY_MS + aroundMs }
}

function idRow(gap: ReturnType<typeof GAP.parse>): IdRow[] {
  const { from_id, to_id } = gap
  return from_id === null || to_id === null || !isTradeType(gap.event_type)
    ? []
    : [{ ...gap, from_id, to_id }]
}
