import type { EventType } from '../../foundation/market/event.ts'
import type { Example, Finding, NotChecked } from './report-types.ts'

type Fields = { readonly [Name in keyof Finding]?: Finding[Name] | undefined }

/** Makes a finding. Absent fields are null: a finding without a symbol is about the whole. */
export function finding(fields: Pick<Finding, 'check' | 'kind' | 'severity' | 'summary'> & Fields): Finding {
  const { check, kind, severity, symbol = null, eventType = null, epoch = null } = fields
  const { count = null, summary, examples = [] } = fields
  return { check, kind, severity, symbol, eventType, epoch, count, summary, examples }
}

/** Says what was not checked. Absent fields are null. */
export function unchecked(
  what: string,
  { symbol = null, count = null, examples = [] }: Partial<NotChecked> = {},
): NotChecked {
  return { what, symbol, count, examples }
}

/** Makes an example of one id, as a number or as PostgreSQL's text. */
export function atId(id: number | string, detail: string): Example {
  return { from: Number(id), to: Number(id), detail }
}

/** A row of a query that counts the cases of each kind and returns the first ones. */
export interface CaseRow {
  readonly symbol: string
  readonly event_type: EventType
  readonly epoch: number | null
  readonly kind: string
  /** Number of cases of this kind. */
  readonly total: number
  /** Null if the case has no ids. */
  readonly from_id: string | null
  readonly to_id: string | null
  readonly detail: string
}

/**
 * Ends a query whose rows of `FROM` are cases of {@link CaseRow}: keeps the first ones of each kind.
 *
 * @param limit parameter with the maximum number of cases of a kind
 */
export function firstCases(from: string, limit: string): string {
  return `placed AS (
    SELECT *, (count(*) OVER same)::float8 AS total, row_number() OVER (same ORDER BY from_id) AS place
    FROM ${from} WINDOW same AS (PARTITION BY symbol, event_type, epoch, kind))
  SELECT * FROM placed WHERE place <= ${limit} ORDER BY symbol, event_type DESC, epoch, kind, place`
}

/** Returns a finding for each kind of case, which `describe` describes. */
export function findingsOf<Row extends CaseRow>(
  rows: readonly Row[],
  describe: (first: Row) => Pick<Finding, 'check' | 'severity' | 'summary'>,
): Finding[] {
  const kinds = Map.groupBy(rows, (row) => [row.symbol, row.event_type, row.epoch, row.kind].join(' '))
  return [...kinds.values()].flatMap((cases) => {
    const [first] = cases
    if (first === undefined) return []
    const { symbol, event_type: eventType, epoch, kind, total: count } = first
    const examples = cases.map(({ from_id, to_id, detail }) => ({
      from: from_id === null ? null : Number(from_id),
      to: to_id === null ? null : Number(to_id),
      detail,
    }))
    return [finding({ ...describe(first), kind, symbol, eventType, epoch, count, examples })]
  })
}
