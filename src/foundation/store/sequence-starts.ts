import { z } from 'zod'
import { epochField, idField, symbolField, timeMsField } from '../market/field-schemas.ts'
import type { Queryable } from './database.ts'

const SEQUENCE_START = z.object({
  symbol: symbolField,
  eventType: z.enum(['trade', 'aggTrade']),
  epoch: epochField,
  /** The first trade id or aggregate trade id that came through the topic, backfilled ones aside. */
  id: idField,
  /** Its trade time, milliseconds since the Unix epoch. */
  timeMs: timeMsField,
})

/** Where the consumer began to store the ids of a symbol and type. Older ones may be stored, and none of them has to be. */
export type SequenceStart = z.infer<typeof SEQUENCE_START>

const PREFIX = 'start:'

/** Rows are only added: the first start of a symbol and type counts. */
export async function writeSequenceStarts(
  connection: Queryable,
  starts: readonly SequenceStart[],
): Promise<void> {
  if (starts.length === 0) return
  const facts = starts.map((start) => ({ key: `${PREFIX}${start.symbol} ${start.eventType}`, value: start }))
  await connection.query(
    `INSERT INTO meta (key, value)
     SELECT key, value::text FROM jsonb_to_recordset($1::jsonb) AS fact (key text, value jsonb) ON CONFLICT DO NOTHING`,
    [JSON.stringify(facts)],
  )
}

export async function readSequenceStarts(connection: Queryable): Promise<SequenceStart[]> {
  const { rows } = await connection.query<{ value: string }>(
    `SELECT value FROM meta WHERE key LIKE '${PREFIX}%'`,
  )
  return rows.map(({ value }) => SEQUENCE_START.parse(JSON.parse(value)))
}
