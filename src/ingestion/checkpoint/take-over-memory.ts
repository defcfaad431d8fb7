import { streamName, TRADE_TYPES, type TradeType } from '../../foundation/market/event.ts'
import type { Gap } from '../../foundation/market/gap.ts'
import { subtract } from '../../foundation/market/id-ranges.ts'
import type { Continuity, StreamEvent } from '../continuity/continuity.ts'
import type { GapLedger } from '../continuity/gap-ledger.ts'
import { asIdGap, type IdGap, isSameSequence, rangeOf } from '../continuity/gap-rows.ts'
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
    const emptied = memory.pendingGaps(symbol).filter(({ from_id }) => from_id === null)
    const others = new Set([...adopted, ...emptied.map(({ gap_id }) => gap_id)])
    const open = known.open_gaps.flatMap(asIdGap).filter(({ gap_id }) => !others.has(gap_id))
    ledger.restore(open.map(standing))
    for (const type of TRADE_TYPES) if (known[type] !== null) continuity.restore(symbol, type, known[type])
    if (known.bookTicker !== null) continuity.restoreQuotes(symbol, known.bookTicker)
  }
  ledger.restore([...emptied, ...own.filter(({ status }) => status !== 'open')])
  for (const row of foreign) ledger.adopt(row)
  for (const [symbol, { fromMs, toMs }] of lostQuotes) ledger.outage(symbol, fromMs, toMs, 'truncation')
  kafka.writeStart()
  if (isLedgerRecreated) for (const gap of ledger.openGaps) kafka.publish(gap)
  for (const symbol of memory.symbols) {
    for (const gap of memory.pendingGaps(symbol)) {
      for (const one of asIdGap(gap).filter(({ status }) => status === 'open')) {
        ledger.restore([one])
        continuity.lack(one)
      }
      kafka.publish(gap)
    }
  }
  for (const gap of ledger.openGaps) continuity.abandonIfOver(gap)
  for (const symbol of memory.symbols) {
    for (const type of TRADE_TYPES) openForgotten(continuity, ledger, symbol, type)
  }
}

/**
 * Opens a gap for each hole. If a closed row has the ids, Kafka lost them after that row was
 * written: the row is reopened, so that no id is in two rows.
 */
export function openForgotten(
  continuity: Pick<Continuity<StreamEvent>, 'holesOf' | 'epochOf'>,
  ledger: GapLedger,
  symbol: string,
  type: TradeType,
): void {
  const stream = streamName(symbol, type)
  const [holes, epoch] = [continuity.holesOf(stream), continuity.epochOf(stream)]
  const missingIn = (rows: readonly IdGap[]) => subtract(holes, rows.map(rangeOf))
  const sequence = { symbol, event_type: type, epoch }
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
