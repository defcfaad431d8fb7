import type { ConnectionPlan } from '../foundation/binance/connection-plan.ts'
import type { ControlFrame } from './frame-handler.ts'

/** How a connection ended. */
export interface ConnectionEnd {
  /** The streams that it delivered; null if it never opened. */
  readonly streams: readonly string[] | null
  /** It has delivered market data. */
  readonly hasDelivered: boolean
  /** It was dropped to be opened again without a wait. */
  readonly reconnectsAtOnce: boolean
}

/** What a connection reports to its slot. */
export interface ConnectionListener {
  /**
   * The socket is open and nothing has been read from it yet. An error that it throws closes the connection, and is fatal
   * if it is a `TapelineError`.
   *
   * @param named the name that the exchange gives itself in the upgrade; null without one
   */
  onOpen(named: string | null): void
  /** Reading begins. */
  onConnected(plan: ConnectionPlan): void
  /** Further streams are to come over an open connection, each once {@link onSubscribed} has it. */
  onJoining(streams: readonly string[]): void
  /** An open connection no longer delivers these streams. */
  onLeft(streams: readonly string[]): void
  /** The exchange has confirmed streams that had no place in the URL. */
  onSubscribed(streams: readonly string[]): void
  /** All its streams are subscribed, and it has delivered market data since. Reported once. */
  onDelivering(): void
  /** The exchange does not give it its streams. */
  onRefused(reason: string): void
  /** It has ended, for whatever reason; reported once and last, but not after {@link onFatal}. */
  onClosed(end: ConnectionEnd): void
  /** @returns true if the frame was market data */
  onFrame(frame: Buffer): boolean
  /** The exchange cannot be used, and waiting does not help. */
  onFatal(error: unknown): void
}

/** Where all connections deliver, each under its id. */
export interface StreamSink {
  /** As {@link ConnectionListener.onOpen}. */
  opened(named: string | null): void
  connected(connection: number, plan: ConnectionPlan): void
  joining(connection: number, streams: readonly string[]): void
  left(connection: number, streams: readonly string[]): void
  subscribed(connection: number, streams: readonly string[]): void
  /** An open connection has ended. */
  disconnected(connection: number, streams: readonly string[]): void
  /** @returns true if the frame was market data */
  frame(frame: Buffer, connection: number, onControl: (control: ControlFrame) => void): boolean
  /** Streams have gone quiet, and are subscribed to once more. */
  quiet(streams: readonly string[]): void
  fatal(error: unknown): void
}
