import { RECORDING, type Recording } from '../market/recording.ts'
import type { Queryable } from './database.ts'
import { addFacts, readFacts } from './meta.ts'

const PREFIX = 'recording:'

/** Writes announcements. Only adds rows, since the same announcement may be read twice. */
export function writeRecordings(connection: Queryable, recordings: readonly Recording[]): Promise<void> {
  return addFacts(
    connection,
    recordings.map((value) => ({ key: `${PREFIX}${value.instance} ${value.at}`, value })),
  )
}

/** Returns the announcements, oldest first. */
export async function readRecordings(connection: Queryable): Promise<Recording[]> {
  const values = await readFacts(connection, PREFIX)
  return values.map((value) => RECORDING.parse(value)).sort((a, b) => a.at - b.at)
}
