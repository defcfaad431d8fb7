import pg from 'pg'

/** Runs statements one by one on a connection, outside of transactions: those that none may hold (CREATE DATABASE, ALTER SYSTEM). */
export async function runStatements(url: string, ...statements: string[]): Promise<void> {
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: 10_000,
    query_timeout: 30_000,
  })
  await client.connect()
  try {
    for (const statement of statements) await client.query(statement)
  } finally {
    await client.end()
  }
}
