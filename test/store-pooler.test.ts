import assert from 'node:assert/strict'
import { tmpdir } from 'node:os'
import { test } from 'node:test'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { databaseKinds } from './support/database.ts'
import { startNativeTimescale } from './support/native-timescaledb.ts'
import { startPgBouncer } from './support/pgbouncer.ts'
import { runStatements } from './support/statements.ts'

const [native] = databaseKinds()

test('a pooled session that another program left without a search_path fails once, and never again', {
  skip: native?.skip ?? false,
}, async () => {
  const server = await startNativeTimescale({ cacheDir: process.env['TAPELINE_CACHE_DIR'] ?? tmpdir() })
  assert.ok('url' in server)
  const pooler = await startPgBouncer(server.url)
  const database = openPostgres({
    url: pooler.url,
    poolMin: 0,
    poolMax: 1,
    applicationName: 'tapeline-test',
  })
  try {
    await runStatements(server.url, 'CREATE TABLE there ()')
    // As pg_dump does. PgBouncer gives the most recently returned session to the next client.
    await runStatements(pooler.url, "SELECT set_config('search_path', '', false)")
    await assert.rejects(database.query('SELECT FROM there'), { code: '42P01' })
    for (let i = 0; i < 5; i++) await database.query('SELECT FROM there')
  } finally {
    await database.close()
    await pooler.stop()
    await server.stop()
  }
})
