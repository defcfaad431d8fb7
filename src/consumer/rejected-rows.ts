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

/** Consecutive refused rows that still count as single bad rows. */
export const MAX_REJECTIONS = 20

/**
 * Accepted rows that cancel one refusal. A constraint that refuses more than 5 % is considered
 * wrong.
 */
const ACCEPTED_PER_REFUSAL = 20

/**
 * Distinguishes bad rows from a constraint that refuses too many, which must not turn a whole topic
 * into dead letters. Each constraint has a level. It rises by one with each refused row and falls
 * by one with every 20 rows that its table accepts. Above 20 the database is considered faulty. So
 * 1 bad row in 1,000 is always tolerated, and 21 in a row are not.
 */
export class RejectionLimit {
  readonly #levels = new Map<string, number>()

  /** Counts accepted rows of a table. */
  accepted(table: string, rows: number): void {
    for (const [key, level] of this.#levels) {
      if (!key.startsWith(`${table} `)) continue
      const next = level - rows / ACCEPTED_PER_REFUSAL
      if (next <= 0) this.#levels.delete(key)
      else this.#levels.set(key, next)
    }
  }

  /** @returns true when the constraint has now refused too many */
  refused(table: string, constraint: string): boolean {
    const key = `${table} ${constraint}`
    const level = (this.#levels.get(key) ?? 0) + 1
    this.#levels.set(key, level)
    return level > MAX_REJECTIONS
  }
}
