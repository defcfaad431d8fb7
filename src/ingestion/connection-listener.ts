import type { Report } from './connection/life-cycle.ts'
import type { ControlFrame, Core } from './core.ts'

/** How a connection ended. */
export interface ConnectionEnd {
  /** The streams that it delivered; null if it never opened. */
  readonly streams: readonly string[] | null
  /** Whether it delivered market data. */
  readonly hasDelivered: boolean
  /** Whether it was dropped to reconnect without a wait. */
  readonly reconnectsAtOnce: boolean
}

/** What a connection reports to its slot. */
export interface ConnectionListener<Connection> {
  /**
   * Reports that it is `opened`; once that it is `delivering`, when all its streams are subscribed
   * and it has delivered market data since; or that the exchange has `refused` its streams.
   */
  onReport(connection: Connection, report: Exclude<Report, 'shutdown' | 'closed'>, reason?: string): void
  onControl(connection: Connection, frame: ControlFrame): void
  /** Called once and last, when it has ended for any reason, except after {@link onFatal}. */
  onClosed(connection: Connection, end: ConnectionEnd): void
  /** Called when the exchange cannot be used and waiting does not help. */
  onFatal(error: unknown): void
}

/** What connections deliver, each with its id. */
export type StreamSink = Pick<
  Core,
  'onFrame' | 'connected' | 'joining' | 'left' | 'subscribed' | 'disconnected'
>
