import type { TopicKind } from '../foundation/kafka/message-decoder.ts'
import { byEventType, isTradeType } from '../foundation/market/event.ts'
import type { EventFields, KnownSymbol } from '../foundation/market/event-fields.ts'
import { type Loss, lossKey } from '../foundation/store/losses.ts'
import type { Batch } from './batch.ts'

/**
 * Finds the first event of each symbol and type in a partition, after messages expired unread or
 * since the very first start. Adds each to the batch, with what is known of the loss, so that it is
 * stored with the batch's rows.
 */
export class FirstEvents {
  readonly #loss: Loss
  readonly #seen: Set<string>
  /** Most events share a symbol object, so the check needs no string. */
  readonly #met = byEventType(() => new WeakSet<KnownSymbol>())

  private constructor(loss: Loss) {
    this.#loss = loss
    this.#seen = new Set(loss.seen)
  }

  /** @returns null at the first start for quotes: they have no ids, so no sequence begins */
  static after(loss: Loss, kind: TopicKind): FirstEvents | null {
    return kind === 'bookTicker' && loss.cause === 'start' ? null : new FirstEvents(loss)
  }

  observe(batch: Batch, event: EventFields): void {
    // A backfilled trade is late, so it does not show where the stream resumed.
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
    const timeMs = !isTradeType(eventType) ? Math.floor(event.receivedUs / 1000) : event.tradeTimeMs
    const loss = `${lossKey(this.#loss)}:${to}`
    batch.firstsAfterLoss.push({ symbol, eventType, epoch, id, timeMs, cause, loss })
    this.noteIn(batch)
  }

  /** Adds what is known of the loss to a batch, for the next reader of the partition. */
  noteIn(batch: Batch): void {
    batch.losses.set(lossKey(this.#loss), { ...this.#loss, seen: [...this.#seen] })
  }
}
