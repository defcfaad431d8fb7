import type { TimeUnit } from '../market/time-unit.ts'
import type { Queryable } from './database.ts'

/** The exchange this database's data came from; null while it holds none. */
export async function readExchangeIdentity(connection: Queryable): Promise<string | null> {
  const { rows } = await connection.query<{ value: string }>("SELECT value FROM meta WHERE key = 'source'")
  return rows[0]?.value ?? null
}

/** Marks the database, unless it is marked already. @returns the mark that it now has */
export async function markExchangeIdentity(connection: Queryable, source: string): Promise<string> {
  await connection.query("INSERT INTO meta (key, value) VALUES ('source', $1) ON CONFLICT DO NOTHING", [
    source,
  ])
  return (await readExchangeIdentity(connection)) ?? source
}

/** Likewise with what its trade times are counted in. */
export async function markTimeUnit(connection: Queryable, unit: TimeUnit): Promise<string> {
  await connection.query("INSERT INTO meta (key, value) VALUES ('time_unit', $1) ON CONFLICT DO NOTHING", [
    unit,
  ])
  return (await readTimeUnit(connection)) ?? unit
}

/** What trade times are counted in; null while that is not known. */
export async function readTimeUnit(connection: Queryable): Promise<string | null> {
  const { rows } = await connection.query<{ value: string }>("SELECT value FROM meta WHERE key = 'time_unit'")
  return rows[0]?.value ?? null
}
