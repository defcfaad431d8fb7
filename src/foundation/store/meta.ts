import type { TimeUnit } from '../market/time-unit.ts'
import type { Queryable } from './database.ts'

/** Returns the exchange that this database's data came from; null while it has none. */
export async function readExchangeIdentity(connection: Queryable): Promise<string | null> {
  const { rows } = await connection.query<{ value: string }>("SELECT value FROM meta WHERE key = 'source'")
  return rows[0]?.value ?? null
}

/** Marks the database, unless it is already marked. @returns its mark */
export async function markExchangeIdentity(connection: Queryable, source: string): Promise<string> {
  await connection.query("INSERT INTO meta (key, value) VALUES ('source', $1) ON CONFLICT DO NOTHING", [
    source,
  ])
  return (await readExchangeIdentity(connection)) ?? source
}

/** Marks the database with the unit of its trade times. @returns its mark */
export async function markTimeUnit(connection: Queryable, unit: TimeUnit): Promise<string> {
  await connection.query("INSERT INTO meta (key, value) VALUES ('time_unit', $1) ON CONFLICT DO NOTHING", [
    unit,
  ])
  return (await readTimeUnit(connection)) ?? unit
}

/** Returns the unit of trade times; null while unknown. */
export async function readTimeUnit(connection: Queryable): Promise<string | null> {
  const { rows } = await connection.query<{ value: string }>("SELECT value FROM meta WHERE key = 'time_unit'")
  return rows[0]?.value ?? null
}

/** Adds facts as JSON; an existing key keeps its value. */
export async function addFacts(
  connection: Queryable,
  facts: ReadonlyArray<{ readonly key: string; readonly value: object }>,
): Promise<void> {
  if (facts.length === 0) return
  await connection.query(
    `INSERT INTO meta (key, value)
     SELECT key, value::text FROM jsonb_to_recordset($1::jsonb) AS fact (key text, value jsonb) ON CONFLICT DO NOTHING`,
    [JSON.stringify(facts)],
  )
}

/** Returns the values of all facts whose key begins with the prefix. */
export async function readFacts(connection: Queryable, prefix: string): Promise<unknown[]> {
  const { rows } = await connection.query<{ value: string }>(
    'SELECT value FROM meta WHERE starts_with(key, $1)',
    [prefix],
  )
  return rows.map(({ value }) => JSON.parse(value))
}
