import type { BaseOffset } from '../../foundation/kafka/record-sender.ts'
import type { OutgoingMessage } from './outgoing-message.ts'

/** What becomes of messages. */
export interface SendEvents {
  /** Kafka has messages of one partition; the next offset, or null when the broker no longer knows it. */
  onAcknowledged(messages: readonly OutgoingMessage[], next: BaseOffset | null): void
  /** A message will not be sent: its partition is refused and its queue is full, or it is larger than its topic takes. */
  onDiscarded(message: OutgoingMessage, cause: DiscardCause): void
  /** A message will be sent, after others that were discarded. */
  onKept(message: OutgoingMessage): void
  /** An error that no broker caused. */
  onDefect(error: unknown): void
}

export type DiscardCause = 'refused' | 'too large'
