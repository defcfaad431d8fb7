import { z } from 'zod'
import { STREAM_TYPES } from './event.ts'
import { symbolField, timeMsField } from './fields.ts'
import { TIME_UNITS } from './time-unit.ts'

/*
 * Announces what an ingestion process records from a moment on, as a message in the ledger's topic
 * (`schema` = `recording/1`, key = `!recording`). The consumer stores it and `verify` compares it
 * with the rows: rows that never arrived leave no other trace.
 */

/** The key of the message. No symbol contains an exclamation mark. */
export const RECORDING_KEY = '!recording'

const text = z.string().min(1).max(200)

export const RECORDING = z.object({
  instance: text,
  /** Start of this recording, milliseconds since the Unix epoch. */
  at: timeMsField,
  source: text,
  time_unit: z.enum(TIME_UNITS),
  /** Without `depth` before it could be recorded. */
  topics: z.object({ trades: text, bookTicker: text, depth: text.optional(), gaps: text }),
  /** `SHARD`. */
  shard: text,
  event_types: z.array(z.enum(STREAM_TYPES)),
  symbols: z.array(symbolField),
})

export type Recording = z.infer<typeof RECORDING>
