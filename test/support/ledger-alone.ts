import type { Gap } from '../../src/foundation/market/gap.ts'
import { GapLedger } from '../../src/ingestion/continuity/gap-ledger.ts'

/** A ledger with the rows that it has published, in order. @param nowMs its wall clock */
export function ledgerAlone(nowMs = 0): { readonly ledger: GapLedger; readonly rows: Gap[] } {
  const rows: Gap[] = []
  const ledger = new GapLedger(
    (gap) => rows.push(gap),
    () => nowMs,
  )
  return { ledger, rows }
}

/** The rows as the table keeps them: the newest revision of each, by gap id. */
export function tableOf(rows: readonly Gap[]): Gap[] {
  const table = new Map<string, Gap>()
  for (const row of rows) {
    const known = table.get(row.gap_id)
    if (known === undefined || known.revision < row.revision) table.set(row.gap_id, row)
  }
  return [...table.values()]
}
