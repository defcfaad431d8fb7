import { streamName } from '../../foundation/market/event.ts'
import type { Gap } from '../../foundation/market/gap.ts'
import type { Continuity, StreamEvent } from '../continuity/continuity.ts'
import type { GapLedger } from '../continuity/gap-ledger.ts'
import { asIdGap, type IdGap } from '../continuity/gap-rows.ts'
import type { AcknowledgedState } from './acknowledged-state.ts'

const REASON_EPOCH = 'ingestion does not know this epoch'

/**
 * Applies ledger rows that other instances, consumers or operators have written. Specification: C5,
 * L5.
 */
export class ForeignGaps<Event extends StreamEvent> {
  readonly #acknowledged: AcknowledgedState
  readonly #ledger: GapLedger
  readonly #continuity: Continuity<Event>

  constructor(acknowledged: AcknowledgedState, ledger: GapLedger, continuity: Continuity<Event>) {
    this.#acknowledged = acknowledged
    this.#ledger = ledger
    this.#continuity = continuity
  }

  /** Applies a row that a stopping older instance wrote after this one had started. */
  ofOlderInstance(gap: Gap): void {
    this.#acknowledged.gap(gap)
    for (const one of asIdGap(gap)) {
      // A newer epoch than ours will soon show itself with a new row.
      if (this.#isAhead(one)) continue
      this.#ledger.adopt(one)
      if (one.status !== 'open') continue
      // Also if another row has some of its ids: the rest may be open under an id of this instance.
      this.#continuity.lack(one)
      this.#abandonOtherEpochs(one)
    }
  }

  /**
   * Applies a request of the consumer or of an operator: its ids were forwarded but are not stored.
   */
  request(gap: Gap): void {
    this.#acknowledged.gap(gap)
    for (const one of asIdGap(gap)) {
      this.#ledger.takeOver(one)
      this.#continuity.reopen(one)
      this.#abandonOtherEpochs(one)
    }
  }

  /** REST knows only the ids of the current epoch. */
  #abandonOtherEpochs(request: IdGap): void {
    for (const gap of this.#ledger.openGaps) {
      if (gap.symbol !== request.symbol || gap.event_type !== request.event_type) continue
      this.#continuity.abandonIfOver(gap)
      if (this.#isAhead(gap))
        this.#ledger.unrecoverable(gap, { from: gap.from_id, to: gap.to_id }, REASON_EPOCH)
    }
  }

  #isAhead({ symbol, event_type, epoch }: IdGap): boolean {
    return epoch > this.#continuity.epochOf(streamName(symbol, event_type))
  }
}
