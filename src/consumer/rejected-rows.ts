/** A row that the database refused, by its index in its table's part of the batch. */
export interface Rejection {
  readonly index: number
  readonly error: unknown
}

/**
 * Writes rows `[from, to)` and rolls them back when the database refuses one of them.
 *
 * @returns null when all were accepted; the error when a row was refused (see `failures.ts`);
 *   rejects with other errors
 */
export type TryRows = (from: number, to: number) => Promise<unknown>

/**
 * Finds the refused rows by bisection. A bad row among `count` costs about 2·log2(count)
 * statements.
 *
 * @param limit ends the search after this many: single rows are not the problem then
 * @returns by ascending index
 */
export async function findRejected(count: number, tryRows: TryRows, limit: number): Promise<Rejection[]> {
  const refused: Rejection[] = []
  const search = async (from: number, to: number): Promise<void> => {
    if (from >= to || refused.length >= limit) return
    const error = await tryRows(from, to)
    if (error === null) return
    if (to - from === 1) {
      refused.push({ index: from, error })
      return
    }
    const middle = (from + to) >> 1
    await search(from, middle)
    await search(middle, to)
  }
  await search(0, count)
  return refused
}
