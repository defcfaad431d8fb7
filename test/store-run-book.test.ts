import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { migrate } from '../src/foundation/store/migrate.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { createTestDatabase } from './support/database.ts'

const RUN_BOOK = join(resolve(import.meta.dirname, '..'), 'docs/operations.md')

test('every query of the run-book runs unchanged on a real TimescaleDB', async () => {
  const queries = [...readFileSync(RUN_BOOK, 'utf8').matchAll(/`(SELECT [^`]+)`/g)].map(
    (match) => match[1] ?? '',
  )
  assert.ok(queries.length >= 4, `${queries.length} queries`)
  const server = await createTestDatabase()
  const database = openPostgres({ url: server.url, poolMin: 0, poolMax: 1, applicationName: 'test' })
  try {
    await migrate(database)
    for (const query of queries)
      await database.query(query).catch((error: unknown) => assert.fail(`${query}: ${error}`))
  } finally {
    await database.close()
    await server.drop()
  }
})
