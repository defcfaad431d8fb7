import { z } from 'zod'
import { TRADE_TYPES } from '../market/event.ts'
import { epochField, idField, symbolField, timeMsField } from '../market/field-schemas.ts'
import { RECORDING, type Recording } from '../market/recording.ts'
import type { Queryable } from './database.ts'
import { addFacts, readFacts } from './meta.ts'

const RECORDING_PREFIX = 'recording:'

/** Writes announcements. Only adds rows, since the same announcement may be read twice. */
export function writeRecordings(connection: Queryable, recordings: readonly Recording[]): Promise<void> {
  return addFacts(
    connection,
    recordings.map((value) => ({ key: `${RECORDING_PREFIX}${value.instance} ${value.at}`, value })),
  )
}

/** Returns the announcements, oldest first. */
export async function readRecordings(connection: Queryable): Promise<Recording[]> {
  const values = await readFacts(connection, RECORDING_PREFIX)
  return values.map((value) => RECORDING.parse(value)).sort((a, b) => a.at - b.at)
}

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

const START_PREFIX = 'start:'

/** Writes starts. Only adds rows: the first start of a symbol and type counts. */
export function writeSequenceStarts(connection: Queryable, starts: readonly SequenceStart[]): Promise<void> {
  return addFacts(
    connection,
    starts.map((value) => ({ key: `${START_PREFIX}${value.symbol} ${value.eventType}`, value })),
  )
}

export async function readSequenceStarts(connection: Queryable): Promise<SequenceStart[]> {
  return (await readFacts(connection, START_PREFIX)).map((value) => SEQUENCE_START.parse(value))
}
