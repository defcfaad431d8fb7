import type { ConnectionPlan } from '../foundation/binance/connection-plan.ts'
import type { ControlFrame } from './frame-handler.ts'

/** How a connection ended. */
export interface ConnectionEnd {
  /** The streams that it delivered; null if it never opened. */
  readonly streams: readonly string[] | null
  /** Whether it delivered market data. */
  readonly hasDelivered: boolean
  /** Whether it was dropped to reconnect without a wait. */
  readonly reconnectsAtOnce: boolean
}

/** Callbacks of a connection to its slot. */
export interface ConnectionListener {
  /**
   * Called when the socket is open and nothing has been read from it. An error that it throws
   * closes the connection, and is fatal if it is a `TapelineError`.
   *
   * @param named the exchange's name in the upgrade response; null for Binance, which sends none
   */
  onOpen(named: string | null): void
  /** Called when reading begins. */
  onConnected(plan: ConnectionPlan): void
  /**
   * Called with further streams requested on an open connection; {@link onSubscribed} follows for
   * each.
   */
  onJoining(streams: readonly string[]): void
  /** Called when an open connection unsubscribes from streams. */
  onLeft(streams: readonly string[]): void
  /** Called when the exchange has confirmed streams that did not fit in the URL. */
  onSubscribed(streams: readonly string[]): void
  /** Called once, when all its streams are subscribed and it has delivered market data since. */
  onDelivering(): void
  /** Called when the exchange refuses its streams. */
  onRefused(reason: string): void
  /** Called once and last, when it has ended for any reason, except after {@link onFatal}. */
  onClosed(end: ConnectionEnd): void
  /** @returns true if the frame was market data */
  onFrame(frame: Buffer): boolean
  /** Called when the exchange cannot be used and waiting does not help. */
  onFatal(error: unknown): void
}

/** Receives what all connections deliver, each with its id. */
export interface StreamSink {
  /** See {@link ConnectionListener.onOpen}. */
  opened(named: string | null): void
  connected(connection: number, plan: ConnectionPlan): void
  joining(connection: number, streams: readonly string[]): void
  left(connection: number, streams: readonly string[]): void
  subscribed(connection: number, streams: readonly string[]): void
  /** Called when an open connection has ended. */
  disconnected(connection: number, streams: readonly string[]): void
  /** @returns true if the frame was market data */
  frame(frame: Buffer, connection: number, onControl: (control: ControlFrame) => void): boolean
  /** Called when streams have gone quiet and their subscription is renewed. */
  quiet(streams: readonly string[]): void
  fatal(error: unknown): void
}
