import { isTradeType } from '../../foundation/market/event.ts'
import { type IdRow, reopened, requestRevision } from '../../foundation/market/gap-requests.ts'
import type { Queryable } from '../../foundation/store/database.ts'
import { readIdGaps } from '../../foundation/store/ledger-rows.ts'

/** Selects ledger rows. Without ids: all that touch the symbol and the time. */
export interface GapFilter {
  readonly symbol: string | null
  readonly ids?: readonly string[]
  /** Milliseconds since the Unix epoch; null for no bound. */
  readonly fromMs: number | null
  readonly toMs: number | null
}

/** Reads ledger rows that name ids. Time windows name none, so they cannot be filled. */
export async function readGaps(connection: Queryable, filter: GapFilter): Promise<IdRow[]> {
  const { symbol, ids } = filter
  const rows = await readIdGaps(connection, symbol === null ? {} : { symbol })
  return rows.filter((row) => (ids === undefined || ids.includes(row.gap_id)) && isWithin(row, filter))
}

/** Compares by the times of the surrounding trades, or by the detection time if there are none. */
function isWithin({ from_time, to_time, detected_at }: IdRow, { fromMs, toMs }: GapFilter): boolean {
  const begin = from_time ?? to_time ?? detected_at
  const end = to_time ?? from_time ?? detected_at
  return (fromMs === null || end >= fromMs) && (toMs === null || begin < toMs)
}

export type RetryOutcome =
  | { readonly row: IdRow; readonly request: IdRow }
  | { readonly row: IdRow; readonly request: null; readonly reason: string }

/** Why missing changes of an order book stay missing. */
const NOT_FETCHED = 'cannot be reopened: REST has no past changes of order books'

/**
 * Plans the requests to reopen rows: `unrecoverable` ones, and `filled` ones that are named by id. Order books
 * are left out unless they are named: REST has only trades.
 */
export async function planRetry(
  connection: Queryable,
  filter: GapFilter,
  nowMs: number,
): Promise<RetryOutcome[]> {
  const wanted = await readGaps(connection, filter)
  const outcomes: RetryOutcome[] = []
  const revisions = new Map<string, number>()
  for (const row of wanted) {
    if (row.status === 'open') {
      if (filter.ids !== undefined) outcomes.push({ row, request: null, reason: 'is open already' })
      continue
    }
    if (row.status === 'filled' && filter.ids === undefined) continue
    const { event_type: type } = row
    if (!isTradeType(type)) {
      if (filter.ids !== undefined) outcomes.push({ row, request: null, reason: NOT_FETCHED })
      continue
    }
    const stream = `${row.symbol} ${row.event_type} ${row.epoch}`
    const revision =
      revisions.get(stream) ??
      requestRevision(await readIdGaps(connection, { symbol: row.symbol, epoch: row.epoch, eventType: type }))
    revisions.set(stream, revision)
    const range = { from: row.from_id, to: row.to_id }
    outcomes.push({ row, request: reopened(row, range, revision, nowMs) })
  }
  return outcomes
}
