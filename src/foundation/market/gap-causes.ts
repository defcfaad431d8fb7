/**
 * Why events are missing, as the ledger has it: the service that notices it; whether it also makes
 * rows that are windows of time (quotes, whose ids are not contiguous, or trades with unknown ids,
 * as at a reset); and its meaning, for documents.
 */
export const GAP_CAUSES = {
  reconnect: ['ingestion', true, 'no connection delivered the stream, until one opened'],
  restart: ['ingestion', true, 'ingestion did not run'],
  stall: ['ingestion', true, 'an open connection did not deliver the stream although others did'],
  silent: ['ingestion', false, 'REST knows trades after the last event of a quiet stream'],
  listed: ['ingestion', false, 'the symbol was listed, and traded before its streams were subscribed to'],
  delisted: ['ingestion', true, 'the symbol was delisted, and listed again'],
  missed: ['ingestion', false, 'the ids between two events of an open connection'],
  reset: ['ingestion', true, 'the exchange restarted the ids'],
  clock: ['ingestion', true, 'the wall clock was set, or the machine slept'],
  refused: ['ingestion', true, 'Kafka refused a partition, and its part of the queue was full'],
  'too large': ['ingestion', true, 'an event was larger than its topic accepts'],
  retention: ['consumer', true, 'messages expired in Kafka before they were stored'],
  recreated: ['consumer', true, 'a topic was deleted with messages that were not stored'],
  truncation: ['ingestion', true, 'a partition lost messages that Kafka had acknowledged'],
} as const satisfies Record<string, [by: 'ingestion' | 'consumer', hasWindows: boolean, meaning: string]>

export type GapCause = keyof typeof GAP_CAUSES
/** The causes that the consumer notices. */
export type ConsumerCause = {
  [Cause in GapCause]: (typeof GAP_CAUSES)[Cause][0] extends 'consumer' ? Cause : never
}[GapCause]

/** All of them, in the order of the documents. */
export const GAP_CAUSE_NAMES = Object.keys(GAP_CAUSES).filter((name): name is GapCause => name in GAP_CAUSES)

/** The causes that ingestion notices. */
export const INGESTION_CAUSES = GAP_CAUSE_NAMES.filter((cause) => GAP_CAUSES[cause][0] === 'ingestion')

/** Those that make windows of time. */
export const OUTAGE_CAUSES = INGESTION_CAUSES.filter((cause) => GAP_CAUSES[cause][1])
