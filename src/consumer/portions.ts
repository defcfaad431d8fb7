import { TapelineError } from '../foundation/runtime/errors.ts'
import { describeRefusal, SQLSTATE, sqlStateOf } from '../foundation/store/sql-state.ts'

/**
 * To look for a duplicate of a row, TimescaleDB may decompress up to 1,000 rows. Its limit is
 * 100,000 per transaction.
 */
const PORTION_ROWS = 100

const FIX =
  'Raise the limit that the message names; for rows of compressed chunks: ' +
  'ALTER DATABASE … SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0. Then start the consumer again: ' +
  'no offset has moved past a row that is not stored.'

/**
 * Whether a transaction exceeded a limit of the server's settings. A retry does not help; a smaller
 * transaction may.
 */
export function isLimit(error: unknown): boolean {
  return sqlStateOf(error) === SQLSTATE.configurationLimitExceeded
}

/**
 * Writes rows in portions, which become half as large when one is too large.
 *
 * @param write writes the rows `[from, to)` in a transaction
 * @throws TapelineError `DATABASE` when a single row exceeds the limit
 */
export async function inPortions(
  rows: number,
  write: (from: number, to: number) => Promise<void>,
): Promise<void> {
  let portion = PORTION_ROWS
  for (let from = 0; from < rows; ) {
    const to = Math.min(rows, from + portion)
    try {
      await write(from, to)
      from = to
    } catch (error) {
      if (!isLimit(error)) throw error
      portion = Math.floor((to - from) / 2)
      if (portion > 0) continue
      const message = `A single row exceeds a limit of the database: ${describeRefusal(error)}`
      throw new TapelineError('DATABASE', message, { fix: FIX, cause: error })
    }
  }
}
