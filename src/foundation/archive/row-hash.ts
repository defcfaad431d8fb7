import type { ArchiveColumn, ArchiveTable } from './tables.ts'

/*
 * A number per row that both databases compute alike, so that rows can be compared through their sum,
 * which does not depend on their order. It is the first 60 bits of the MD5 of a text: the values of
 * the columns in their order, joined by `|`. Times are microseconds since the Unix epoch, decimals
 * have their eight decimal places, flags are `true` or `false`, and null is an empty text.
 */

/** The same values as texts, and the number of a text, in each database's SQL. */
const DIALECTS = {
  duckDb: {
    time: (name: string) => `epoch_us(${name})`,
    decimal: (name: string) => name,
    hash: (text: string) => `('0x' || substr(md5(${text}), 1, 15))::BIGINT`,
  },
  postgres: {
    time: (name: string) => `(extract(epoch FROM ${name}) * 1000000)::bigint`,
    // Unpacked levels have fewer decimals.
    decimal: (name: string) => `round(${name}, 8)`,
    hash: (text: string) => `('x' || substr(md5(${text}), 1, 15))::bit(60)::bigint`,
  },
} as const

/** Returns an SQL expression: the hash of a row of the table. */
export function rowHash(dialect: keyof typeof DIALECTS, { columns }: Pick<ArchiveTable, 'columns'>): string {
  const { time, decimal, hash } = DIALECTS[dialect]
  const text = ({ name, kind, isNullable }: ArchiveColumn) => {
    const value = kind === 'time' ? time(name) : kind === 'decimal' ? decimal(name) : name
    const isText = kind === 'word' ? value : `CAST(${value} AS varchar)`
    return isNullable ? `coalesce(${isText}, '')` : isText
  }
  return hash(`concat_ws('|', ${columns.map(text).join()})`)
}

/** Rows of a symbol: how many, and the sum of their hashes. */
export interface RowFigures {
  readonly rows: number
  readonly hash: bigint
}

export const NO_ROWS: RowFigures = { rows: 0, hash: 0n }

export function plus(one: RowFigures, other: RowFigures): RowFigures {
  return { rows: one.rows + other.rows, hash: one.hash + other.hash }
}
