/**
 * Why events are missing, as the ledger has it.
 *
 * - `by`: the service that notices it.
 * - `hasWindows`: it also makes rows that are windows of time: quotes, whose ids are not contiguous, or trades with
 *   unknown ids, as at a reset.
 * - `meaning`: for documents.
 */
export const GAP_CAUSES = {
  reconnect: {
    by: 'ingestion',
    hasWindows: true,
    meaning: 'no connection delivered the stream, until one opened',
  },
  restart: {
    by: 'ingestion',
    hasWindows: true,
    meaning: 'ingestion did not run',
  },
  stall: {
    by: 'ingestion',
    hasWindows: true,
    meaning: 'an open connection did not deliver the stream although others did',
  },
  silent: {
    by: 'ingestion',
    hasWindows: false,
    meaning: 'REST knows trades after the last event of a quiet stream',
  },
  listed: {
    by: 'ingestion',
    hasWindows: false,
    meaning: 'the symbol was listed, and traded before its streams were subscribed to',
  },
  delisted: {
    by: 'ingestion',
    hasWindows: true,
    meaning: 'the symbol was delisted, and listed again',
  },
  missed: {
    by: 'ingestion',
    hasWindows: false,
    meaning: 'the ids between two events of an open connection',
  },
  reset: {
    by: 'ingestion',
    hasWindows: true,
    meaning: 'the exchange restarted the ids',
  },
  clock: {
    by: 'ingestion',
    hasWindows: true,
    meaning: 'the wall clock was set, or the machine slept',
  },
  refused: {
    by: 'ingestion',
    hasWindows: true,
    meaning: 'Kafka refused a partition, and its part of the queue was full',
  },
  'too large': {
    by: 'ingestion',
    hasWindows: true,
    meaning: 'an event was larger than its topic accepts',
  },
  retention: {
    by: 'consumer',
    hasWindows: true,
    meaning: 'messages expired in Kafka before they were stored',
  },
  recreated: {
    by: 'consumer',
    hasWindows: true,
    meaning: 'a topic was deleted with messages that were not stored',
  },
  truncation: {
    by: 'ingestion',
    hasWindows: true,
    meaning: 'a partition lost messages that Kafka had acknowledged',
  },
} as const satisfies Record<string, { by: 'ingestion' | 'consumer'; hasWindows: boolean; meaning: string }>

export type GapCause = keyof typeof GAP_CAUSES
/** The causes that the consumer notices. */
export type ConsumerCause = {
  [Cause in GapCause]: (typeof GAP_CAUSES)[Cause]['by'] extends 'consumer' ? Cause : never
}[GapCause]

/** All of them, in the order of the documents. */
export const GAP_CAUSE_NAMES = Object.keys(GAP_CAUSES).filter((name): name is GapCause => name in GAP_CAUSES)

/** The causes that ingestion notices. */
export const INGESTION_CAUSES = GAP_CAUSE_NAMES.filter((cause) => GAP_CAUSES[cause].by === 'ingestion')
