import type { TopicKind } from '../foundation/kafka/message-decoder.ts'
import type { EventFields, KnownSymbol } from '../foundation/market/event-fields.ts'
import { type Loss, lossKey } from '../foundation/store/losses.ts'
import type { Batch } from './batch.ts'

/**
 * Watches a partition for the first event of each symbol and type after messages had left it unread, or since the very first
 * start. A batch takes such an event, and what is known then, to be stored with its rows.
 */
export class FirstEvents {
  readonly #loss: Loss
  readonly #seen: Set<string>
  /** Most events come with a symbol object that they share: looking it up costs no text. */
  readonly #met = { trade: new WeakSet(), aggTrade: new WeakSet(), bookTicker: new WeakSet<KnownSymbol>() }

  private constructor(loss: Loss) {
    this.#loss = loss
    this.#seen = new Set(loss.seen)
  }

  /** @returns null where no event has anything to show: quotes have no ids that begin somewhere */
  static after(loss: Loss, kind: TopicKind): FirstEvents | null {
    return kind === 'bookTicker' && loss.cause === 'start' ? null : new FirstEvents(loss)
  }

  observe(batch: Batch, event: EventFields): void {
    // A backfilled trade is late: it does not show where the messages went on.
    if (event.isBackfill) return
    const { type: eventType, epoch, id } = event
    const met = this.#met[eventType]
    if (met.has(event.symbol)) return
    met.add(event.symbol)
    const symbol = event.symbol.text
    const key = `${symbol} ${eventType}`
    if (this.#seen.has(key)) return
    this.#seen.add(key)
    const { cause, to } = this.#loss
    const timeMs = eventType === 'bookTicker' ? Math.floor(event.receivedUs / 1000) : event.tradeTimeMs
    const loss = `${lossKey(this.#loss)}:${to}`
    batch.firstsAfterLoss.push({ symbol, eventType, epoch, id, timeMs, cause, loss })
    this.noteIn(batch)
  }

  /** Keeps in a batch what is known of the loss, for the next reader of the partition. */
  noteIn(batch: Batch): void {
    batch.losses.set(lossKey(this.#loss), { ...this.#loss, seen: [...this.#seen] })
  }
}
