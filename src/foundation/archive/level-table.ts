import type { BookState } from '../order-book/book-rows.ts'
import { SIDE_NAMES } from '../order-book/order-book.ts'
import type { DuckDb } from './duckdb.ts'
import { CHUNK_ROWS, type ColumnValues, emptyChunk } from './row-chunk.ts'
import type { ArchiveColumn } from './tables.ts'

/** Of `COLUMN_KINDS.decimal`. */
const SCALE = 8
const TWO_TO_32 = 2 ** 32

const COLUMNS = [
  { name: 'is_ask', kind: 'flag' },
  { name: 'level', kind: 'number' },
  { name: 'price', kind: 'decimal' },
  { name: 'quantity', kind: 'decimal' },
] as const satisfies readonly ArchiveColumn[]

let tables = 0

/**
 * Copies the levels of a book to a temporary table of the engine for the time of some work.
 *
 * @param use gets a query of rows like those of a snapshot: `last_update_id`, `side`, `level`, `price`, `quantity`
 */
export async function withLevelTable<Result>(
  duckDb: DuckDb,
  book: BookState,
  use: (rows: string) => Promise<Result>,
): Promise<Result> {
  const name = `levels_${++tables}`
  const table = await duckDb.createTable(name, COLUMNS)
  try {
    let chunk = emptyChunk(COLUMNS)
    for (const side of SIDE_NAMES) {
      const { count, prices, quantities, priceScale, quantityScale } = book[side]
      for (let i = 0; i < count; i++) {
        if (chunk.rows === CHUNK_ROWS) {
          table.add(chunk)
          chunk = emptyChunk(COLUMNS)
        }
        const row = chunk.rows++
        const [isAsk, level, price, quantity] = chunk.columns
        if (isAsk === undefined || level === undefined || price === undefined || quantity === undefined)
          continue
        isAsk.bytes[row] = side === 'asks' ? 1 : 0
        level.words[row] = i + 1
        writeUnits(price, row, prices[i] ?? 0, priceScale)
        writeUnits(quantity, row, quantities[i] ?? 0, quantityScale)
      }
    }
    if (chunk.rows > 0) table.add(chunk)
    await table.finish()
    return await use(
      `SELECT ${book.lastUpdateId}::BIGINT AS last_update_id, if(is_ask, 'ask', 'bid') AS side, "level", price, quantity FROM ${name}`,
    )
  } finally {
    await duckDb.run(`DROP TABLE ${name}`)
  }
}

/** Writes a whole number of units of 10^-scale. */
function writeUnits({ words }: ColumnValues, row: number, units: number, scale: number): void {
  const at = row * 4
  const value = units * 10 ** (SCALE - scale)
  if (Number.isSafeInteger(value)) {
    words[at] = value
    words[at + 1] = value / TWO_TO_32
    return
  }
  const large = BigInt(units) * 10n ** BigInt(SCALE - scale)
  for (let i = 0; i < 4; i++) words[at + i] = Number(BigInt.asUintN(32, large >> BigInt(32 * i)))
}
