import { streamName } from '../../foundation/market/event.ts'
import type { Continuity, StreamEvent } from '../continuity/continuity.ts'
import type { GapLedger } from '../continuity/gap-ledger.ts'
import { asIdGap, type IdGap, isTradeGap, rangeOf } from '../continuity/gap-rows.ts'
import type { AcknowledgedState } from './acknowledged-state.ts'
import type { ForeignRows } from './instance-watch.ts'
import { keepMissing, openForgotten } from './take-over-memory.ts'

const REASON_EPOCH = 'ingestion does not know this epoch'

/** Applies ledger rows that other instances, consumers, imports or operators have written (C5, L5, L7). */
export function foreignGaps<Event extends StreamEvent>(
  acknowledged: AcknowledgedState,
  ledger: GapLedger,
  continuity: Continuity<Event>,
): ForeignRows {
  const isAhead = ({ symbol, event_type, epoch }: IdGap) =>
    epoch > continuity.epochOf(streamName(symbol, event_type))
  /** REST knows only the ids of the current epoch. */
  const abandonOtherEpochs = ({ symbol, event_type }: IdGap) => {
    for (const gap of ledger.openGaps) {
      if (gap.symbol !== symbol || gap.event_type !== event_type) continue
      continuity.abandonIfOver(gap)
      if (isAhead(gap)) ledger.unrecoverable(gap, rangeOf(gap), REASON_EPOCH)
    }
  }
  return {
    ofOlderInstance(row) {
      acknowledged.gap(row)
      for (const gap of asIdGap(row)) {
        // A newer epoch than ours will soon show itself with a new row.
        if (isAhead(gap)) continue
        // An instance that stood still enters all order book updates of its sleep, also those that this one forwarded.
        ledger.adopt(gap, isTradeGap(gap) ? undefined : continuity.notForwarded(gap))
        keepMissing(gap, acknowledged, ledger, continuity)
        if (gap.status !== 'open') continue
        // Also if another row has some of its ids: the rest may be open under an id of this instance.
        continuity.lack(gap)
        abandonOtherEpochs(gap)
        // Ids between its and ours: whether that instance has forwarded them is not known.
        openForgotten(continuity, ledger, gap.symbol, gap.event_type)
      }
    },
    imported(row) {
      acknowledged.gap(row)
      for (const gap of asIdGap(row)) ledger.imported(gap)
    },
    request(row) {
      acknowledged.gap(row)
      for (const gap of asIdGap(row)) {
        ledger.takeOver(gap)
        continuity.reopen(gap)
        abandonOtherEpochs(gap)
      }
    },
  }
}
