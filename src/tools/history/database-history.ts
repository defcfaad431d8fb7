import { countUnstored } from '../../foundation/kafka/read-range.ts'
import type { IdRange } from '../../foundation/market/id-ranges.ts'
import { readOffsets } from '../../foundation/store/consumer-offsets.ts'
import { epochAt } from '../../foundation/store/epoch-at.ts'
import { missingIds, readIdGaps } from '../../foundation/store/ledger-rows.ts'
import { readIdentity } from '../../foundation/store/meta.ts'
import type { TextReader, TextRow } from '../../foundation/store/text-reader.ts'
import type { DailyFile } from './daily-file.ts'
import { type HistoryStore, storedRow } from './history-store.ts'

const ROWS_AT_ONCE = 20_000

const ROWS = `SELECT trade_id, price, quantity, (extract(epoch FROM trade_time) * 1000000)::bigint, is_buyer_maker,
    first_trade_id, last_trade_id, source
  FROM trades
  WHERE symbol = $1 AND event_type = $2 AND trade_time >= $3::timestamptz AND trade_time < $3::timestamptz + interval '1 day'
  ORDER BY trade_id`

/** Consecutive ids as ranges. An id under two times is one id. */
const IDS = `SELECT min(trade_id), max(trade_id) FROM (
    SELECT trade_id, trade_id - row_number() OVER (ORDER BY trade_id) AS run FROM (
      SELECT DISTINCT trade_id FROM trades
      WHERE symbol = $1 AND event_type = $2 AND epoch = $6 AND trade_id BETWEEN $4 AND $5
        AND trade_time >= $3::timestamptz - interval '1 day' AND trade_time < $3::timestamptz + interval '2 days') AS ids) AS numbered
  GROUP BY run ORDER BY 1`

/** Reads from the tables, in the reader's snapshot. */
export function databaseHistory(reader: TextReader): HistoryStore {
  const { typed } = reader
  const dayOf = ({ symbol, type, date }: DailyFile) => [symbol, type, `${date} 00:00:00+00`]
  return {
    identity: () => readIdentity(typed),
    unstored: async (ends) => countUnstored(await readOffsets(typed), ends),
    async *rowsOf(file) {
      for await (const { rows } of reader.select(ROWS, dayOf(file), ROWS_AT_ONCE)) yield rows.map(storedRow)
    },
    async *idsOf(file, { from, to }, epoch) {
      const values = [...dayOf(file), String(from), String(to), String(epoch)]
      for await (const { rows } of reader.select(IDS, values, ROWS_AT_ONCE)) yield rows.map(rangeOf)
    },
    epochAt: (symbol, type, timeUs) => epochAt(typed, symbol, type, timeUs),
    gapsOf: (stream) => readIdGaps(typed, stream),
    missingOf: (stream, ranges) => missingIds(typed, stream, ranges),
  }
}

function rangeOf([from, to]: TextRow): IdRange {
  return { from: Number(from), to: Number(to) }
}
