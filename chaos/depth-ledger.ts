import { countIds, type IdRange, normalise, subtract } from '../src/foundation/market/id-ranges.ts'
import type { Database } from '../src/foundation/store/database.ts'
import type { Exchange } from '../src/sandbox/simulator/exchange-server.ts'
import type { Window } from './outages.ts'
import { reasonsOf, type Snapshot, type SnapshotReason } from './snapshot-reasons.ts'

export interface DepthCheck {
  readonly diffs: number
  /** Stretches of update ids that no stored diff covers, and how many ids they have. */
  readonly holes: number
  readonly lostIds: number
  /** Diffs that a fault of the exchange dropped within the recordings; in the ledger; stored from another connection. */
  readonly dropped: { readonly diffs: number; readonly inLedger: number; readonly stored: number }
  /** Snapshots by the reason that the stored data shows. */
  readonly snapshots: Readonly<Partial<Record<SnapshotReason, number>>>
  readonly violations: readonly string[]
}

interface DepthEvidence {
  readonly exchange: {
    readonly faults: Pick<Exchange['faults'], 'struck'>
    readonly history: Pick<Exchange['history'], 'symbols'>
  }
  /** When ingestion's processes started; wall-clock milliseconds. */
  readonly starts: readonly number[]
  /** Faults that can lose diffs. */
  readonly faults: readonly Window[]
  /** Whether receipts are from a clock that was right. */
  readonly isClockRight: boolean
}

interface Hole extends IdRange, Window {}

/** A fault has lost diffs this long before or after it: those of a broken connection end before, the next ones come later. */
const AROUND_MS = 6000
const SHOWN = 3

/**
 * Compares the stored diffs with the ledger: an update id is either in a stored diff or in the ledger, never both. Each
 * hole needs a fault that can lose diffs, and each snapshot a reason, so a rollover or a shutdown of the exchange's
 * servers causes neither.
 */
export async function checkDepth(database: Database, evidence: DepthEvidence): Promise<DepthCheck> {
  const violations: string[] = []
  const dropped = { diffs: 0, inLedger: 0, stored: 0 }
  const totals = { diffs: 0, holes: 0, lostIds: 0 }
  const snapshots: Partial<Record<SnapshotReason, number>> = {}
  const { frames, forgotten } = evidence.exchange.faults.struck()
  if (forgotten > 0) violations.push(`The exchange no longer knows ${forgotten} frames that faults affected.`)
  for (const symbol of evidence.exchange.history.symbols) {
    const { ranges, diffs, doubled } = await storedDiffs(database, symbol)
    const [first, last] = [ranges[0], ranges.at(-1)]
    if (first === undefined || last === undefined) {
      violations.push(`${symbol} depth: nothing is stored.`)
      continue
    }
    const all = { from: first.from, to: last.to }
    const lost = subtract([all], ranges)
    const holes = await depthHoles(database, symbol)
    const within = holes.filter(({ from, to }) => to >= all.from && from <= all.to)
    const unlisted = subtract(lost, holes)
    const stored = subtract(within, [...lost, { from: 0, to: all.from - 1 }])
    if (unlisted.length > 0)
      violations.push(`${symbol} depth: updates ${shown(unlisted)} are neither stored nor in the ledger.`)
    if (stored.length > 0)
      violations.push(`${symbol} depth: updates ${shown(stored)} are in the ledger as lost, but are stored.`)
    if (doubled > 0) violations.push(`${symbol} depth: ${doubled} diffs are stored more than once.`)
    const groundless = within.filter((hole) => !evidence.faults.some((fault) => isNear(hole, fault)))
    if (groundless.length > 0)
      violations.push(
        `${symbol} depth: updates ${shown(groundless)} were lost without a fault that loses any.`,
      )
    for (const { kind, stream, firstId, lastId } of frames) {
      if (kind !== 'drop' && kind !== 'stall') continue
      if (stream !== `${symbol.toLowerCase()}@depth@100ms` || firstId < all.from || lastId > all.to) continue
      const range = [{ from: firstId, to: lastId }]
      dropped.diffs++
      if (subtract(range, ranges).length === 0) dropped.stored++
      else if (subtract(range, [...ranges, ...holes]).length === 0) dropped.inLedger++
    }
    totals.diffs += diffs
    totals.holes += lost.length
    totals.lostIds += countIds(lost)
    if (!evidence.isClockRight) continue
    for (const [reason, count] of reasonsOf(await snapshotsOf(database, symbol, evidence.starts), lost))
      snapshots[reason] = (snapshots[reason] ?? 0) + count
  }
  if (snapshots.none !== undefined)
    violations.push(`${snapshots.none} snapshots of order books were requested without a reason.`)
  return { ...totals, dropped, snapshots, violations }
}

async function storedDiffs(database: Database, symbol: string) {
  const { rows } = await database.query<IdRange>(
    `SELECT first_update_id::float8 AS "from", last_update_id::float8 AS "to" FROM depth_updates
     WHERE symbol = $1 ORDER BY 1, 2`,
    [symbol],
  )
  const doubled = rows.filter(
    ({ from, to }, i) => rows[i - 1]?.from === from && rows[i - 1]?.to === to,
  ).length
  return { ranges: normalise(rows), diffs: rows.length, doubled }
}

async function depthHoles(database: Database, symbol: string): Promise<Hole[]> {
  const { rows } = await database.query<Hole>(
    `SELECT from_id::float8 AS "from", to_id::float8 AS "to", (extract(epoch FROM from_time) * 1000)::float8 AS "fromMs",
       (extract(epoch FROM to_time) * 1000)::float8 AS "toMs"
     FROM gaps WHERE symbol = $1 AND event_type = 'depth' AND from_id IS NOT NULL AND status = 'unrecoverable'`,
    [symbol],
  )
  return rows
}

async function snapshotsOf(
  database: Database,
  symbol: string,
  starts: readonly number[],
): Promise<Snapshot[]> {
  const best = (side: string) => `(SELECT price::float8 FROM unpack_levels(${side}) LIMIT 1)`
  const { rows } = await database.query<Omit<Snapshot, 'process'>>(
    `SELECT last_update_id::float8 AS id, level_limit AS "limit", (extract(epoch FROM ingestion_timestamp) * 1000)::float8 AS "takenMs",
       ${best('bids')} AS "bestBid", ${best('asks')} AS "bestAsk", bid_horizon::float8 AS "bidEdge", ask_horizon::float8 AS "askEdge"
     FROM depth_snapshots WHERE symbol = $1 AND kind = 'rest' ORDER BY ingestion_timestamp`,
    [symbol],
  )
  const processAt = (timeMs: number) => starts.filter((atMs) => atMs <= timeMs).length
  return rows.map((row) => ({ ...row, process: processAt(row.takenMs) }))
}

function isNear(hole: Window, fault: Window): boolean {
  return hole.fromMs <= fault.toMs + AROUND_MS && hole.toMs >= fault.fromMs - AROUND_MS
}

function shown(ranges: readonly IdRange[]): string {
  const more = ranges.length > SHOWN ? ` and ${ranges.length - SHOWN} others` : ''
  return `${ranges
    .slice(0, SHOWN)
    .map(({ from, to }) => `${from}..${to}`)
    .join(', ')}${more}`
}
