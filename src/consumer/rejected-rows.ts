/** A row that the database refused, by its index in its table's part of the batch. */
export interface Rejection {
  readonly index: number
  readonly error: unknown
}

/**
 * Writes rows `[from, to)` and takes them back where the database refuses one of them.
 *
 * @returns null when it took all; the error when it refused a row (see `failures.ts`); rejects with every other error
 */
export type TryRows = (from: number, to: number) => Promise<unknown>

/**
 * Finds the rows that are refused by halving. A bad row among `count` costs some 2·log2(count) statements.
 *
 * @param limit after so many the search ends: then it is no matter of single rows
 * @returns by rising index
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
