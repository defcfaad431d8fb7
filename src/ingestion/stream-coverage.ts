import type { ConnectionPlan } from '../foundation/binance/connection-plan.ts'
import type { Clock } from '../foundation/runtime/clock.ts'
import type { SilenceCheck } from './backfill/silence-check.ts'
import type { Continuity } from './continuity/continuity.ts'
import { HOLD_LIMIT_MS } from './continuity/stream-connections.ts'
import type { FrameHandler, StampedEvent } from './frame-handler.ts'

/** Follows which connection is to deliver which stream, and notes where none does. */
export class StreamCoverage {
  readonly #clock: Clock
  readonly #symbols: ReadonlySet<string>
  readonly #handler: FrameHandler
  readonly #continuity: Continuity<StampedEvent>
  readonly #silence: SilenceCheck

  constructor(
    clock: Clock,
    symbols: ReadonlySet<string>,
    handler: FrameHandler,
    continuity: Continuity<StampedEvent>,
    silence: SilenceCheck,
  ) {
    this.#clock = clock
    this.#symbols = symbols
    this.#handler = handler
    this.#continuity = continuity
    this.#silence = silence
  }

  /** A connection has opened: what it alone delivers is to deliver soon, or is asked for. */
  connected(
    connection: number,
    { streams, subscriptions }: Pick<ConnectionPlan, 'streams' | 'subscriptions'>,
  ): void {
    this.#await(this.#handler.merge.opened(connection, streams, subscriptions.flat()))
  }

  /** An open connection is to deliver further streams, once the exchange has confirmed them. */
  joining(connection: number, streams: readonly string[]): void {
    this.#await(this.#handler.merge.joined(connection, streams, streams))
  }

  #await(alone: readonly string[]): void {
    this.#continuity.interrupted(alone, 'reconnect')
    this.#silence.watch(this.#symbols, new Set(alone))
  }

  /** An open connection delivers streams no more, since the exchange does not have them any more. */
  left(connection: number, streams: readonly string[]): void {
    const { rates, merge } = this.#handler
    rates.forget(connection, streams)
    rates.halt(streams)
    merge.left(connection, streams, (out) => this.#continuity.interrupted(out, 'delisted'))
  }

  /** Streams have gone quiet on a connection: where no other delivers them, they are out until their next event. */
  quiet(streams: readonly string[]): void {
    const nowMs = this.#clock.monotonicMs()
    const { rates } = this.#handler
    const isOut = (stream: string) =>
      nowMs - rates.lastSeenMs(stream) > rates.patienceMs(stream) - HOLD_LIMIT_MS
    this.#continuity.interrupted(streams.filter(isOut), 'stall')
  }

  /** A connection is gone; what it alone delivered may have something missing before its next event. */
  disconnected(connection: number, streams: readonly string[], cause: string): void {
    this.#handler.rates.forget(connection, streams)
    const { merge } = this.#handler
    const uncovered = merge.closed(connection, streams, (out) => this.#continuity.interrupted(out, cause))
    // One that is open already is not asked again when it begins to deliver.
    if (merge.connections > 0) this.#silence.watch(this.#symbols, new Set(uncovered))
  }
}
