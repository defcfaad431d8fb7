import { z } from 'zod'
import { TRADE_TYPES } from '../market/event.ts'
import { epochField, idField, symbolField, timeMsField } from '../market/field-schemas.ts'
import type { Queryable } from './database.ts'
import { addFacts, readFacts } from './meta.ts'

const SEQUENCE_START = z.object({
  symbol: symbolField,
  eventType: z.enum(TRADE_TYPES),
  epoch: epochField,
  /**
   * The first trade id or aggregate trade id that came through the topic, excluding backfilled
   * ones.
   */
  id: idField,
  /** Its trade time, milliseconds since the Unix epoch. */
  timeMs: timeMsField,
})

/**
 * Where the consumer began to store the ids of a symbol and type. Older ids may be stored, but are
 * not required.
 */
export type SequenceStart = z.infer<typeof SEQUENCE_START>

const PREFIX = 'start:'

/** Writes starts. Only adds rows: the first start of a symbol and type counts. */
export function writeSequenceStarts(connection: Queryable, starts: readonly SequenceStart[]): Promise<void> {
  return addFacts(
    connection,
    starts.map((value) => ({ key: `${PREFIX}${value.symbol} ${value.eventType}`, value })),
  )
}

export async function readSequenceStarts(connection: Queryable): Promise<SequenceStart[]> {
  return (await readFacts(connection, PREFIX)).map((value) => SEQUENCE_START.parse(value))
}
