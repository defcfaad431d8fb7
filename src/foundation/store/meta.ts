import { z } from 'zod'
import { TRADE_TYPES } from '../market/event.ts'
import { epochField, idField, symbolField, timeMsField } from '../market/fields.ts'
import { RECORDING, type Recording } from '../market/recording.ts'
import { parseTimeUnit, type TimeUnit, UNMARKED_TIME_UNIT } from '../market/time-unit.ts'
import type { Queryable } from './database.ts'

/** Returns the text of a fact; null if there is none. */
export async function readFact(connection: Queryable, key: string): Promise<string | null> {
  const { rows } = await connection.query<{ value: string }>('SELECT value FROM meta WHERE key = $1', [key])
  return rows[0]?.value ?? null
}

/** Returns the exchange and the unit of the times; null before the first rows. */
export async function readIdentity(
  connection: Queryable,
): Promise<{ readonly source: string; readonly timeUnit: TimeUnit } | null> {
  const source = await readFact(connection, 'source')
  const timeUnit = parseTimeUnit(await readFact(connection, 'time_unit')) ?? UNMARKED_TIME_UNIT
  return source === null ? null : { source, timeUnit }
}

/** Marks the database with its exchange or the unit of its trade times, unless it is. @returns its mark */
export async function mark(
  connection: Queryable,
  key: 'source' | 'time_unit',
  value: string,
): Promise<string> {
  await connection.query('INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING', [key, value])
  return (await readFact(connection, key)) ?? value
}

/** A row of `meta`, whose value is stored as JSON. */
export interface Fact {
  readonly key: string
  readonly value: unknown
}

/** Adds facts. An existing key keeps its value, since a consumer must not change rows of `meta`. */
export async function addFacts(connection: Queryable, facts: readonly Fact[]): Promise<void> {
  if (facts.length === 0) return
  await connection.query(
    'INSERT INTO meta (key, value) SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING',
    [facts.map(({ key }) => key), facts.map(({ value }) => JSON.stringify(value))],
  )
}

/** Returns the values of all facts whose key begins with the prefix. */
export async function readFacts(connection: Queryable, prefix: string): Promise<unknown[]> {
  const { rows } = await connection.query<{ value: string }>(
    'SELECT value FROM meta WHERE starts_with(key, $1)',
    [prefix],
  )
  return rows.map(({ value }): unknown => JSON.parse(value))
}

/** Writes announcements; the same one may be read twice. */
export function writeRecordings(connection: Queryable, recordings: readonly Recording[]): Promise<void> {
  const factOf = (value: Recording) => ({ key: `recording:${value.instance} ${value.at}`, value })
  return addFacts(connection, recordings.map(factOf))
}

/** Returns the announcements, oldest first. */
export async function readRecordings(connection: Queryable): Promise<Recording[]> {
  const values = await readFacts(connection, 'recording:')
  return values.map((value) => RECORDING.parse(value)).sort((a, b) => a.at - b.at)
}

const SEQUENCE_START = z.object({
  symbol: symbolField,
  eventType: z.enum(TRADE_TYPES),
  epoch: epochField,
  /** The first id that came through the topic, excluding backfilled ones. */
  id: idField,
  /** Its trade time, milliseconds since the Unix epoch. */
  timeMs: timeMsField,
})

/** Where the consumer began to store the ids of a stream. Older ids may be stored, but are not required. */
export type SequenceStart = z.infer<typeof SEQUENCE_START>

/** Writes starts. The first start of a symbol and type counts. */
export function writeSequenceStarts(connection: Queryable, starts: readonly SequenceStart[]): Promise<void> {
  const factOf = (value: SequenceStart) => ({ key: `start:${value.symbol} ${value.eventType}`, value })
  return addFacts(connection, starts.map(factOf))
}

export async function readSequenceStarts(connection: Queryable): Promise<SequenceStart[]> {
  const values = await readFacts(connection, 'start:')
  return values.map((value) => SEQUENCE_START.parse(value))
}
