import pg from 'pg'

/** Runs statements one by one outside of transactions, such as CREATE DATABASE or ALTER SYSTEM. */
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
