import { SEQUENCED_TYPES, type SequencedType, streamName } from '../../foundation/market/event.ts'
import type { Gap } from '../../foundation/market/gap.ts'
import { type IdRange, subtract } from '../../foundation/market/id-ranges.ts'
import type { Continuity, StreamEvent } from '../continuity/continuity.ts'
import type { GapLedger } from '../continuity/gap-ledger.ts'
import { asIdGap, type GapSequence, type IdGap, isSameSequence, rangeOf } from '../continuity/gap-rows.ts'
import type { AcknowledgedState } from './acknowledged-state.ts'
import type { RecoveredParts } from './recovery.ts'

/** Restores ledger and continuity from the recovered state, and sends Kafka the rows that it lacked. */
export function takeOverMemory<Event extends StreamEvent>(
  memory: AcknowledgedState,
  recovered: Pick<RecoveredParts, 'rows' | 'lostQuotes' | 'isLedgerRecreated'>,
  ledger: GapLedger,
  continuity: Continuity<Event>,
  kafka: { readonly writeStart: () => void; readonly publish: (gap: Gap) => void },
): void {
  const { rows, lostQuotes, isLedgerRecreated } = recovered
  const { own, foreign, emptied } = rows
  const ownRows = new Map(own.map((row) => [row.gap_id, row]))
  const adopted = foreign.flatMap(({ gap_id }) => (ownRows.has(gap_id) ? [] : [gap_id]))
  // If two rows have the same revision, the state has the first. Only the row of the last instance
  // fits its other rows.
  const standing = (gap: IdGap) => {
    const row = ownRows.get(gap.gap_id)
    return row?.status === 'open' && row.revision === gap.revision ? row : gap
  }
  for (const symbol of memory.symbols) {
    const known = memory.snapshot(symbol)
    const pending = memory.pendingGaps(symbol)
    const ended = pending.filter(({ from_id, status }) => from_id === null || status !== 'open')
    const others = new Set([...adopted, ...pending.map(({ gap_id }) => gap_id)])
    const open = known.open_gaps.flatMap(asIdGap).filter(({ gap_id }) => !others.has(gap_id))
    ledger.restore(open.map(standing))
    for (const type of SEQUENCED_TYPES)
      if (known[type] !== null) continuity.restore(symbol, type, known[type])
    if (known.bookTicker !== null) continuity.restoreQuotes(symbol, known.bookTicker)
    ledger.restore(ended)
    for (const gap of ended.flatMap(asIdGap)) {
      const stream = streamName(gap.symbol, gap.event_type)
      if (gap.status === 'unrecoverable') continuity.filled(stream, gap.epoch, rangeOf(gap))
    }
  }
  ledger.restore([...emptied, ...own.filter(({ status }) => status !== 'open')])
  for (const row of foreign) {
    ledger.adopt(row)
    keepMissing(row, memory, ledger, continuity)
  }
  for (const [symbol, { fromMs, toMs }] of lostQuotes) ledger.outage(symbol, fromMs, toMs, 'truncation')
  // The start record no longer has these holes, only their rows.
  for (const symbol of memory.symbols) {
    const pending = memory.pendingGaps(symbol).flatMap(asIdGap)
    for (const { sequence, holes } of memory.takeEnded(symbol)) {
      const lost = ledger.rowsOf(sequence).filter(({ status }) => status === 'unrecoverable')
      const rows = [...lost, ...pending.filter((gap) => isSameSequence(gap, sequence))]
      openHoles(ledger, sequence, subtract(holes, rows.map(rangeOf)))
    }
  }
  kafka.writeStart()
  if (isLedgerRecreated) for (const gap of ledger.openGaps) kafka.publish(gap)
  for (const symbol of memory.symbols) {
    for (const gap of memory.pendingGaps(symbol)) {
      kafka.publish(gap)
      for (const one of asIdGap(gap).filter(({ status }) => status === 'open')) {
        // Kafka may have lost the row that took these ids out of another.
        ledger.adopt(one)
        continuity.lack(one)
      }
    }
  }
  for (const gap of ledger.openGaps) continuity.abandonIfOver(gap)
  for (const symbol of memory.symbols) {
    for (const type of SEQUENCED_TYPES) openForgotten(continuity, ledger, symbol, type)
  }
}

/**
 * An older instance found that REST lacks these ids, but an open row of ours has them: they stay
 * missing. Otherwise that row would end as `filled`.
 */
export function keepMissing(
  row: IdGap,
  acknowledged: Pick<AcknowledgedState, 'reopen'>,
  ledger: Pick<GapLedger, 'openGaps'>,
  continuity: Pick<Continuity<StreamEvent>, 'reopen'>,
): void {
  if (row.status !== 'unrecoverable') return
  for (const gap of ledger.openGaps.filter((one) => isSameSequence(one, row))) {
    const [from_id, to_id] = [Math.max(gap.from_id, row.from_id), Math.min(gap.to_id, row.to_id)]
    if (from_id > to_id) continue
    for (const part of [acknowledged, continuity]) part.reopen({ ...gap, from_id, to_id })
  }
}

/** Opens a gap for each hole of a stream that is in no row. */
export function openForgotten(
  continuity: Pick<Continuity<StreamEvent>, 'holesOf' | 'epochOf'>,
  ledger: GapLedger,
  symbol: string,
  type: SequencedType,
): void {
  const stream = streamName(symbol, type)
  openHoles(
    ledger,
    { symbol, event_type: type, epoch: continuity.epochOf(stream) },
    continuity.holesOf(stream),
  )
}

/**
 * Opens a gap for each hole that is in no row. If a closed row has the ids, Kafka lost them after that
 * row was written: the row is reopened, so that no id is in two rows.
 */
function openHoles(ledger: GapLedger, sequence: GapSequence, holes: readonly IdRange[]): void {
  const missingIn = (rows: readonly IdGap[]) => subtract(holes, rows.map(rangeOf))
  const known = () => ledger.rowsOf(sequence)
  for (const row of known().filter(({ status }) => status === 'filled')) {
    const lost = missingIn(ledger.openGaps.filter((gap) => isSameSequence(gap, row)))
    const isLost = lost.some(({ from, to }) => from <= row.to_id && to >= row.from_id)
    if (isLost) ledger.takeOver({ ...row, status: 'open', reason: null, closed_at: null })
  }
  for (const missing of missingIn(known().filter(({ status }) => status === 'open'))) {
    ledger.open(sequence, missing, 'restart', { fromMs: null, toMs: null })
  }
}
