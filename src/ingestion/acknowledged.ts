import type { IdRange } from '../market/id-ranges.ts'
import type { SequenceMemory } from './checkpoint.ts'
import type { StreamMemory } from './continuity.ts'
import type { EventMark, OutgoingMessage } from './message-queue.ts'
import { Sequence } from './sequence.ts'

interface SymbolState {
  readonly trade: Sequence<never>
  readonly aggTrade: Sequence<never>
  lastUpdateId: number | null
  lastReceiptMs: number
  /** Something was acknowledged since the last checkpoint. */
  changed: boolean
}

/** What a checkpoint says of a symbol's events. */
export interface AcknowledgedEvents {
  readonly trade: SequenceMemory | null
  readonly aggTrade: SequenceMemory | null
  readonly bookTicker: { readonly last_update_id: number; readonly last_receipt: number } | null
}

/**
 * What Kafka has acknowledged, by symbol, and up to which offset of each partition: the one state that a
 * checkpoint may speak of. Forwarded events are in it only after their acknowledgement.
 */
export class Acknowledged {
  readonly #symbols = new Map<string, SymbolState>()
  readonly #nextOffsets = new Map<string, number>()

  /** Takes over what an earlier instance, and the topics behind its checkpoint, know of a stream. */
  restore(symbol: string, type: EventMark['type'], memory: StreamMemory): void {
    const state = this.#stateOf(symbol)
    if (type === 'bookTicker') {
      state.lastUpdateId = memory.last
      state.lastReceiptMs = memory.lastTimeMs
      return
    }
    this.#symbols.set(symbol, { ...state, [type]: new Sequence<never>(memory) })
  }

  restoreOffset(topic: string, partition: number, nextOffset: number): void {
    this.#nextOffsets.set(`${topic}:${partition}`, nextOffset)
  }

  /** A send is acknowledged. `nextOffsets`: of the partitions in it, the offset behind its last message. */
  acknowledge(
    messages: readonly OutgoingMessage[],
    nextOffsets: ReadonlyArray<{
      readonly topic: string
      readonly partition: number
      readonly offset: number
    }>,
  ): void {
    for (const { mark } of messages) if (mark !== null) this.#record(mark)
    for (const { topic, partition, offset } of nextOffsets)
      this.#nextOffsets.set(`${topic}:${partition}`, offset)
  }

  /** Ids that Kafka will never have and that are not to be looked for again. */
  settle(symbol: string, type: 'trade' | 'aggTrade', epoch: number, range: IdRange): void {
    const sequence = this.#stateOf(symbol)[type]
    if (sequence.epoch === epoch) sequence.fill(range)
  }

  nextOffset(topic: string, partition: number): number {
    return this.#nextOffsets.get(`${topic}:${partition}`) ?? 0
  }

  /** What holds now of a symbol; it counts as unchanged from here on. */
  snapshot(symbol: string): AcknowledgedEvents {
    const state = this.#stateOf(symbol)
    state.changed = false
    const { lastUpdateId, lastReceiptMs } = state
    return {
      trade: memoryOf(state.trade),
      aggTrade: memoryOf(state.aggTrade),
      bookTicker:
        lastUpdateId === null ? null : { last_update_id: lastUpdateId, last_receipt: lastReceiptMs },
    }
  }

  hasChanged(symbol: string): boolean {
    return this.#stateOf(symbol).changed
  }

  #record({ symbol, type, epoch, id, timeMs }: EventMark): void {
    const state = this.#stateOf(symbol)
    state.changed = true
    if (type !== 'bookTicker') state[type].record(epoch, id, timeMs)
    else if (state.lastUpdateId === null || timeMs >= state.lastReceiptMs) {
      state.lastUpdateId = id
      state.lastReceiptMs = timeMs
    }
  }

  #stateOf(symbol: string): SymbolState {
    const known = this.#symbols.get(symbol)
    if (known !== undefined) return known
    const state: SymbolState = {
      trade: new Sequence<never>(),
      aggTrade: new Sequence<never>(),
      lastUpdateId: null,
      lastReceiptMs: 0,
      changed: false,
    }
    this.#symbols.set(symbol, state)
    return state
  }
}

function memoryOf(sequence: Sequence<never>): SequenceMemory | null {
  const { epoch, last, lastTimeMs } = sequence
  if (last === null) return null
  const holes: IdRange[] = [...sequence.holes]
  return { epoch, last, last_time: lastTimeMs, holes }
}
