/** Refused rows in a row that are still a matter of single rows. */
export const MAX_REJECTIONS = 20

/** So many accepted rows make up for a refused one: a constraint that refuses more than 5 % is at fault itself. */
const ACCEPTED_PER_REFUSAL = 20

/**
 * Tells a bad row from a constraint that refuses rows as a rule, which must not turn a whole topic into dead letters:
 * each constraint has a level that rises by one with each row it refuses and falls with every 20th row that its table
 * takes. Above 20 it is a fault of the database. So 1 bad row in 1,000 goes on for ever, and 21 in a row do not.
 */
export class RejectionLimit {
  readonly #levels = new Map<string, number>()

  /** Rows that a table has taken. */
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
