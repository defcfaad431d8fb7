import { z } from 'zod'
import { bySequencedType, DEFAULT_EVENT_TYPES } from '../../foundation/market/event.ts'
import { epochField } from '../../foundation/market/fields.ts'
import { GAP } from '../../foundation/market/gap.ts'
import type { SequenceMemory } from '../continuity/sequence.ts'

/*
 * The state of a symbol, as its message in the checkpoints topic (key = symbol) stores it.
 * Everything in it holds at the offsets that it names; a start replays the messages after them on
 * top.
 */

const range = z.tuple([z.int(), z.int()]).transform(([from, to]) => ({ from, to }))

const SEQUENCE = z.object({
  epoch: epochField,
  first: z.int().nullish(),
  last: z.int().nullable(),
  last_time: z.int(),
  /** Ids below the last that Kafka lacks, as [from, to]. */
  holes: z.array(range).readonly(),
})

const CHECKPOINT = z.object({
  version: z.literal(1),
  /** `start` is the first record of an instance; an older instance that reads it stops. */
  kind: z.enum(['start', 'running']),
  /** The ingestion process that wrote it. */
  instance: z.string(),
  /** One more than the highest counter read for the symbol: the highest is the newest. */
  counter: z.int().min(0).default(0),
  /** Milliseconds since the Unix epoch, for information only. */
  written_at: z.int(),
  /** The next offset of the symbol's partition, by topic. */
  offsets: z.record(z.string(), z.int()),
  /** The leader epoch of the message before each offset, by topic; absent if unknown. */
  leader_epochs: z.record(z.string(), z.int()).default({}),
  /** Kafka's ids of those topics. In a topic that was recreated since, the checkpoint holds at 0. */
  topic_ids: z.record(z.string(), z.string()).default({}),
  /** The partition of those offsets, by topic. */
  partitions: z.record(z.string(), z.int()).optional(),
  /** For each type with contiguous ids. Checkpoints from before the optional types do not have these. */
  ...bySequencedType((type) =>
    DEFAULT_EVENT_TYPES.includes(type) ? SEQUENCE.nullable() : SEQUENCE.nullable().default(null),
  ),
  bookTicker: z
    .object({
      last_update_id: z.int(),
      last_receipt: z.int(),
      clock_ahead: z.number().nullable().default(null),
    })
    .nullable(),
  open_gaps: z.array(GAP),
  /** Published ledger rows that Kafka did not have yet; the next start publishes them again. */
  pending_gaps: z.array(GAP).default([]),
})

export type Checkpoint = z.infer<typeof CHECKPOINT>

/** @throws ZodError if the text is no checkpoint of this version */
export function parseCheckpoint(text: string): Checkpoint {
  return CHECKPOINT.parse(JSON.parse(text))
}

/** Returns a checkpoint at the beginning of the topics, so that a start reads everything. */
export function emptyCheckpoint(instance: string): Checkpoint {
  return {
    ...{ version: 1, kind: 'running', instance, counter: 0, written_at: 0 },
    ...{ offsets: {}, leader_epochs: {}, topic_ids: {} },
    ...bySequencedType(() => null),
    ...{ bookTicker: null, open_gaps: [], pending_gaps: [] },
  }
}

export function checkpointText(checkpoint: Checkpoint): string {
  const sequence = (memory: SequenceMemory | null) =>
    memory === null ? null : { ...memory, holes: memory.holes.map(({ from, to }) => [from, to]) }
  return JSON.stringify({ ...checkpoint, ...bySequencedType((type) => sequence(checkpoint[type])) })
}
