import type { BaseOffset } from '../../foundation/kafka/record-sender.ts'
import type { GapCause } from '../../foundation/market/gap-causes.ts'
import type { OutgoingMessage } from './outgoing-message.ts'

/** Callbacks about the fate of messages. */
export interface SendEvents {
  /**
   * Kafka acknowledged messages of one partition. `next`: the following offset; null if the broker
   * no longer knows it.
   */
  onAcknowledged(messages: readonly OutgoingMessage[], next: BaseOffset | null): void
  /**
   * A message will not be sent: its set-aside partition has no room, or it is larger than its topic
   * accepts.
   */
  onDiscarded(message: OutgoingMessage, cause: DiscardCause): void
  /** A message will be sent, after others that were discarded. */
  onKept(message: OutgoingMessage): void
  /** An error that no broker caused. */
  onDefect(error: unknown): void
}

export type DiscardCause = Extract<GapCause, 'refused' | 'too large'>
