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

/**
 * Ends a query that returns {@link Cases}, whose rows of `from` are single cases with the columns
 * symbol, event_type, epoch, kind, from_id, to_id and detail. A case without detail only counts.
 * @param limit parameter with the maximum number of examples of a kind
 */
export function firstCases(from: string, limit: string, order = 'from_id'): string {
  return `placed AS (
    SELECT *, (count(*) OVER same)::float8 AS total, row_number() OVER (same ORDER BY ${order}) AS place
    FROM ${from} WINDOW same AS (PARTITION BY symbol, event_type, epoch, kind))
  SELECT symbol, event_type AS "eventType", epoch, kind, total AS count, ${examples('place', 'detail IS NOT NULL')} AS examples
  FROM placed WHERE place <= ${limit} GROUP BY symbol, event_type, epoch, kind, total
  ORDER BY symbol, event_type DESC, epoch, kind`
}

/** SQL: rows with from_id, to_id and detail, as a JSON list of {@link Example}. */
export function examples(order: string, which = 'true'): string {
  return `coalesce(json_agg(json_build_object('from', from_id, 'to', to_id, 'detail', detail) ORDER BY ${order})
    FILTER (WHERE ${which}), '[]')`
}

/** Runs a query that ends with {@link firstCases}. */
export async function readCases(
  connection: Queryable,
  sql: string,
  values: readonly unknown[],
): Promise<Cases[]> {
  return (await connection.query<Cases>(sql, values)).rows
}
