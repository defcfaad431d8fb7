import type { ConnectionPlan } from '../foundation/binance/connection-plan.ts'
import type { GapCause } from '../foundation/market/gap-causes.ts'
import type { Clock } from '../foundation/runtime/clock.ts'
import type { SilenceCheck } from './backfill/silence-check.ts'
import type { Continuity } from './continuity/continuity.ts'
import { HOLD_LIMIT_MS } from './continuity/stream-connections.ts'
import type { FrameHandler, StampedEvent } from './frame-handler.ts'

/** Tracks which connection delivers which stream, and records streams that none delivers. */
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

  /**
   * Called when a connection opens. Streams that it alone delivers are expected soon; if they stay
   * silent, the silence check asks REST.
   */
  connected(
    connection: number,
    { streams, subscriptions }: Pick<ConnectionPlan, 'streams' | 'subscriptions'>,
  ): void {
    this.#await(this.#handler.merge.opened(connection, streams, subscriptions.flat()))
  }

  /**
   * Called when an open connection subscribes to further streams; they count once the exchange
   * confirms them.
   */
  joining(connection: number, streams: readonly string[]): void {
    this.#await(this.#handler.merge.joined(connection, streams, streams))
  }

  #await(alone: readonly string[]): void {
    this.#continuity.interrupted(alone, 'reconnect')
    this.#silence.watch(this.#symbols, new Set(alone))
  }

  /** Called when an open connection drops streams that the exchange no longer has. */
  left(connection: number, streams: readonly string[]): void {
    const { rates, merge } = this.#handler
    rates.forget(connection, streams)
    rates.halt(streams)
    merge.left(connection, streams, (out) => this.#continuity.interrupted(out, 'delisted'))
  }

  /**
   * Called for quiet streams of a connection. If no other connection delivers them, an outage lasts
   * until their next event.
   */
  quiet(streams: readonly string[]): void {
    const nowMs = this.#clock.monotonicMs()
    const { rates } = this.#handler
    const isOut = (stream: string) =>
      nowMs - rates.lastSeenMs(stream) > rates.patienceMs(stream) - HOLD_LIMIT_MS
    this.#continuity.interrupted(streams.filter(isOut), 'stall')
  }

  /**
   * Called when a connection has closed. Events of streams that it alone delivered may be missing
   * before the next event.
   */
  disconnected(connection: number, streams: readonly string[], cause: GapCause): void {
    this.#handler.rates.forget(connection, streams)
    const { merge } = this.#handler
    const uncovered = merge.closed(connection, streams, (out) => this.#continuity.interrupted(out, cause))
    // An open connection needs no second check when it begins to deliver.
    if (merge.connections > 0) this.#silence.watch(this.#symbols, new Set(uncovered))
  }
}
