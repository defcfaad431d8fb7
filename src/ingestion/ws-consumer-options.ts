import type { ConnectionPlan } from '../foundation/binance/connection-plan.ts'
import type { ExchangeGate } from '../foundation/binance/exchange-gate.ts'
import type { BackoffPolicy } from '../foundation/runtime/backoff.ts'
import type { Ports } from './ports.ts'

export interface WsConsumerEvents {
  /**
   * The socket is open and nothing has been read from it yet; throwing closes it.
   *
   * @param source what the exchange names itself in the upgrade: `binance` unless it is one of our own
   */
  onOpen(named: string | null): void
  /** Reading begins. */
  onConnected(plan: ConnectionPlan): void
  /** Further streams are to come over an open connection, each once {@link onSubscribed} has it. */
  onJoining(streams: readonly string[]): void
  /** An open connection is not to deliver streams any more. */
  onLeft(streams: readonly string[]): void
  /** The exchange has confirmed streams that had no place in the URL. */
  onSubscribed(streams: readonly string[]): void
  /** All its streams are subscribed, and it has delivered market data since. Once for each time it opens. */
  onDelivering(): void
  /** The exchange does not give it its streams. */
  onRefused(reason: string): void
  /** The connection that was being read, with these streams, has closed. */
  onDisconnected(streams: readonly string[]): void
  /** @returns true when the frame was market data */
  onFrame(frame: Buffer): boolean
  /** The exchange cannot be used, and waiting does not help. */
  onFatal(error: unknown): void
}

export interface WsConsumerOptions {
  readonly id: number
  /** What it asks for until {@link WsConsumer.follow}. */
  readonly plan: ConnectionPlan
  readonly backoff: BackoffPolicy
  /** Shared by all connections of the process: the exchange counts by IP. */
  readonly gate: ExchangeGate
  readonly ports: Pick<Ports, 'clock' | 'random'> & {
    readonly exchange: Pick<Ports['exchange'], 'openSocket'>
  }
  /** Waits while there is no room for what would be received. */
  readonly whenRoom: (signal: AbortSignal) => Promise<void>
}
