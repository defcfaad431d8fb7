import { z } from 'zod'
import { epochField } from '../../foundation/market/field-schemas.ts'
import { GAP } from '../../foundation/market/gap.ts'

/*
 * What ingestion knows of a symbol, as the message in the checkpoints topic has it (key = symbol). Everything in it
 * holds at the offsets it names: what stands behind them in the topics is to be replayed on top.
 */

const range = z.tuple([z.int(), z.int()]).transform(([from, to]) => ({ from, to }))

const SEQUENCE = z.object({
  epoch: epochField,
  /** The lowest id that is known of. */
  first: z.int().nullish(),
  last: z.int().nullable(),
  last_time: z.int(),
  /** Ids below the last that Kafka does not have, as [from, to]. */
  holes: z.array(range),
})

const CHECKPOINT = z.object({
  version: z.literal(1),
  /** `start`: the first of its instance; an older instance that reads it stops. */
  kind: z.enum(['start', 'running']),
  /** The ingestion process that wrote it. */
  instance: z.string(),
  /** One above the highest that had been read for the symbol. The highest is the newest; clocks decide nothing. */
  counter: z.int().min(0).default(0),
  /** Milliseconds since the Unix epoch, for people. */
  written_at: z.int(),
  /** The next offset of the symbol's partition, by topic. */
  offsets: z.record(z.string(), z.int()),
  /** The leader epoch of the message before each offset, by topic; absent where it is not known. */
  leader_epochs: z.record(z.string(), z.int()).default({}),
  /** Kafka's ids of the topics that those offsets are of. In a topic that was made again since, the checkpoint holds at 0. */
  topic_ids: z.record(z.string(), z.string()).default({}),
  /** The partition those offsets are of, by topic. */
  partitions: z.record(z.string(), z.int()).optional(),
  trade: SEQUENCE.nullable(),
  aggTrade: SEQUENCE.nullable(),
  bookTicker: z
    .object({
      last_update_id: z.int(),
      last_receipt: z.int(),
      /** How far that receipt's clock was ahead of the exchange's, in milliseconds; null where that was not known. */
      clock_ahead: z.number().nullable().default(null),
    })
    .nullable(),
  /** Rows of the ledger that are open. */
  open_gaps: z.array(GAP),
  /** Rows of the ledger that were published and that Kafka did not have yet: they are published again. */
  pending_gaps: z.array(GAP).default([]),
})

export type Checkpoint = z.infer<typeof CHECKPOINT>
export type SequenceMemory = z.infer<typeof SEQUENCE>

/** @throws ZodError for a text that is no checkpoint of this version */
export function parseCheckpoint(text: string): Checkpoint {
  return CHECKPOINT.parse(JSON.parse(text))
}

/** A checkpoint from which everything is read again: it holds at the beginning of the topics. */
export function emptyCheckpoint(instance: string): Checkpoint {
  return {
    version: 1,
    kind: 'running',
    instance,
    counter: 0,
    written_at: 0,
    offsets: {},
    leader_epochs: {},
    topic_ids: {},
    trade: null,
    aggTrade: null,
    bookTicker: null,
    open_gaps: [],
    pending_gaps: [],
  }
}

export function checkpointText(checkpoint: Checkpoint): string {
  const sequence = (memory: SequenceMemory | null) =>
    memory === null ? null : { ...memory, holes: memory.holes.map(({ from, to }) => [from, to]) }
  return JSON.stringify({
    ...checkpoint,
    trade: sequence(checkpoint.trade),
    aggTrade: sequence(checkpoint.aggTrade),
  })
}
