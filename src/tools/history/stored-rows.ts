import type { TextReader, TextRow } from '../../foundation/store/text-reader.ts'
import type { DailyFile } from './daily-file.ts'
import type { HistoryRow } from './daily-rows.ts'

const ROWS_AT_ONCE = 20_000

const SELECT = `SELECT trade_id, price, quantity, (extract(epoch FROM trade_time) * 1000000)::bigint, is_buyer_maker,
    first_trade_id, last_trade_id
  FROM trades
  WHERE symbol = $1 AND event_type = $2 AND trade_time >= $3::timestamptz AND trade_time < $3::timestamptz + interval '1 day'
  ORDER BY trade_id`

/** Yields the stored rows of a file's day, ids ascending. */
export async function* storedRows(
  reader: TextReader,
  { symbol, type, date }: DailyFile,
): AsyncGenerator<HistoryRow> {
  const values = [symbol, type, `${date} 00:00:00+00`]
  for await (const { rows } of reader.select(SELECT, values, ROWS_AT_ONCE))
    for (const row of rows) yield historyRow(row)
}

function historyRow([id, price, quantity, timeUs, isBuyerMaker, first, last]: TextRow): HistoryRow {
  return {
    id: Number(id),
    price: price ?? '',
    quantity: quantity ?? '',
    timeUs: Number(timeUs),
    isBuyerMaker: isBuyerMaker === 't',
    firstTradeId: idOrNull(first),
    lastTradeId: idOrNull(last),
  }
}

function idOrNull(text: string | null | undefined): number | null {
  return text === null || text === undefined ? null : Number(text)
}
