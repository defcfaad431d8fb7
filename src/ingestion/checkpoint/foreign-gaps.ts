import { streamName } from '../../foundation/market/event.ts'
import type { Gap } from '../../foundation/market/gap.ts'
import type { Continuity, StreamEvent } from '../continuity/continuity.ts'
import type { GapLedger } from '../continuity/gap-ledger.ts'
import { asIdGap, type IdGap } from '../continuity/gap-rows.ts'
import type { AcknowledgedState } from './acknowledged-state.ts'

const REASON_EPOCH = 'ingestion does not know this epoch'

/** Takes over what others have written into the topic of the ledger. Specification: C5, L5. */
export class ForeignGaps<Event extends StreamEvent> {
  readonly #acknowledged: AcknowledgedState
  readonly #ledger: GapLedger
  readonly #continuity: Continuity<Event>
  readonly #onGap: () => void

  /** @param onGap called when ids are missing that could be filled */
  constructor(
    acknowledged: AcknowledgedState,
    ledger: GapLedger,
    continuity: Continuity<Event>,
    onGap: () => void,
  ) {
    this.#acknowledged = acknowledged
    this.#ledger = ledger
    this.#continuity = continuity
    this.#onGap = onGap
  }

  /** An instance that is about to stop has entered a gap that was not there when this one started. */
  ofOlderInstance(gap: Gap): void {
    this.#acknowledged.gap(gap)
    for (const one of asIdGap(gap)) {
      // A newer epoch than this one's shows itself soon, with a new row.
      if (this.#isAhead(one)) continue
      this.#ledger.adopt(one)
      if (one.status !== 'open') continue
      // Also where another row has some of its ids: the others may be open under an id of this instance.
      this.#continuity.lack(one)
      this.#abandonOtherEpochs(one)
      this.#onGap()
    }
  }

  /** The consumer, or an operator, asks for ids once more: what was forwarded of them is not stored. */
  request(gap: Gap): void {
    this.#acknowledged.gap(gap)
    for (const one of asIdGap(gap)) {
      this.#ledger.takeOver(one)
      this.#continuity.reopen(one)
      this.#abandonOtherEpochs(one)
      this.#onGap()
    }
  }

  /** REST knows only the ids of the present epoch. */
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
