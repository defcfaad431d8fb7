import { z } from 'zod'
import { EVENT_TYPES } from './event.ts'
import { symbolField, timeMsField } from './field-schemas.ts'
import { TIME_UNITS } from './time-unit.ts'

/*
 * What an ingestion process records from a moment on, as its message in the topic of the ledger has it (`schema` = `recording/1`,
 * key = `!recording`). The consumer keeps it, and `verify` compares: rows that never came leave no other trace.
 */

/** The key of the message. No symbol has an exclamation mark. */
export const RECORDING_KEY = '!recording'

const text = z.string().min(1).max(200)

export const RECORDING = z.object({
  /** Names the process. */
  instance: text,
  /** When it began to record these, milliseconds since the Unix epoch. */
  at: timeMsField,
  /** The exchange. */
  source: text,
  time_unit: z.enum(TIME_UNITS),
  /** The topics of its messages. */
  topics: z.object({ trades: text, bookTicker: text, gaps: text }),
  /** `SHARD`. */
  shard: text,
  event_types: z.array(z.enum(EVENT_TYPES)),
  symbols: z.array(symbolField),
})

export type Recording = z.infer<typeof RECORDING>
