import type { Queryable } from '../../foundation/store/database.ts'
import type { Example, Finding, NotChecked } from './report-types.ts'

/** What a check reports: a finding, or something that it could not check. */
export type Remark = Omit<Finding, 'severity'> & {
  readonly severity: Finding['severity'] | 'not checked'
}

type Fields = { readonly [Name in keyof Remark]?: Remark[Name] | undefined }

/** Makes a finding. Absent fields are null: a finding without a symbol is about the whole. */
export function finding(fields: Fields & Pick<Remark, 'check' | 'kind' | 'severity' | 'summary'>): Remark {
  const { check, kind, severity, symbol = null, eventType = null, epoch = null } = fields
  const { count = null, summary, examples = [] } = fields
  return { check, kind, severity, symbol, eventType, epoch, count, summary, examples }
}

/** Says what was not checked. Absent fields are null. */
export function unchecked(summary: string, about: Partial<NotChecked> = {}): Remark {
  const { symbol, count, examples } = about
  return finding({ check: '', kind: '', severity: 'not checked', symbol, count, summary, examples })
}

export function split(remarks: readonly Remark[]): { findings: Finding[]; notChecked: NotChecked[] } {
  const isFinding = (remark: Remark): remark is Finding => remark.severity !== 'not checked'
  return {
    findings: remarks.filter(isFinding),
    notChecked: remarks
      .filter((remark) => !isFinding(remark))
      .map(({ summary: what, symbol, count, examples }) => ({ what, symbol, count, examples })),
  }
}

export function atId(id: number, detail: string): Example {
  return { from: id, to: id, detail }
}

/** The cases of one kind: their number, and the first ones as examples. */
export type Cases = Pick<Finding, 'symbol' | 'eventType' | 'epoch' | 'kind' | 'examples'> & {
  readonly count: number
}

type Kind = Omit<Cases, 'examples'>

/**
 * Ends a query for {@link readCases}, whose rows of `from` are single cases with the columns
 * symbol, event_type, epoch, kind, from_id, to_id and detail. A case without detail only counts.
 * @param limit parameter with the maximum number of examples of a kind
 */
export function firstCases(from: string, limit: string, order = 'from_id'): string {
  return `placed AS (
    SELECT *, (count(*) OVER same)::float8 AS total, row_number() OVER (same ORDER BY ${order}) AS place
    FROM ${from} WINDOW same AS (PARTITION BY symbol, event_type, epoch, kind))
  SELECT symbol, event_type AS "eventType", epoch, kind, total AS count, ${EXAMPLE_COLUMNS}
  FROM placed WHERE place <= ${limit} ORDER BY symbol, event_type DESC, epoch, kind, place`
}

/** SQL: the columns from_id, to_id and detail, as an {@link Example}. */
export const EXAMPLE_COLUMNS = 'from_id::float8 AS "from", to_id::float8 AS "to", detail'

/** A row with {@link EXAMPLE_COLUMNS}; without detail it is no example. */
export interface ExampleRow {
  readonly from: number | null
  readonly to: number | null
  readonly detail: string | null
}

export function examplesIn(rows: readonly ExampleRow[]): Example[] {
  return rows.flatMap(({ from, to, detail }) => (detail === null ? [] : [{ from, to, detail }]))
}

/** Runs a query that ends with {@link firstCases}. */
export async function readCases(
  connection: Queryable,
  sql: string,
  values: readonly unknown[],
): Promise<Cases[]> {
  const { rows } = await connection.query<Kind & ExampleRow>(sql, values)
  const kinds = Map.groupBy(rows, (row) => [row.symbol, row.eventType, row.epoch, row.kind].join())
  return [...kinds.values()].flatMap((examples) => {
    const [first] = examples
    if (first === undefined) return []
    const { symbol, eventType, epoch, kind, count } = first
    return [{ symbol, eventType, epoch, kind, count, examples: examplesIn(examples) }]
  })
}

/** Removes trailing zeros: `1.500` and `1.5` are equal. */
export function trimmed(decimal: string): string {
  return decimal.includes('.') ? decimal.replace(/\.?0+$/, '') : decimal
}
