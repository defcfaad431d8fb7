import { RECORDING, type Recording } from '../market/recording.ts'
import type { Queryable } from './database.ts'

const PREFIX = 'recording:'

/** Rows are only added: the same announcement may be read twice. */
export async function writeRecordings(
  connection: Queryable,
  recordings: readonly Recording[],
): Promise<void> {
  if (recordings.length === 0) return
  const facts = recordings.map((value) => ({ key: `${PREFIX}${value.instance} ${value.at}`, value }))
  await connection.query(
    `INSERT INTO meta (key, value)
     SELECT key, value::text FROM jsonb_to_recordset($1::jsonb) AS fact (key text, value jsonb) ON CONFLICT DO NOTHING`,
    [JSON.stringify(facts)],
  )
}

/** The oldest first. */
export async function readRecordings(connection: Queryable): Promise<Recording[]> {
  const { rows } = await connection.query<{ value: string }>(
    `SELECT value FROM meta WHERE key LIKE '${PREFIX}%'`,
  )
  return rows.map(({ value }) => RECORDING.parse(JSON.parse(value))).sort((a, b) => a.at - b.at)
}
