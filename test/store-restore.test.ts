import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { migrate } from '../src/foundation/store/migrate.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { createTestDatabase, databaseKinds } from './support/database.ts'
import { ended } from './support/ended.ts'
import { dropDatabase, dumpDatabase, restoreDatabase } from './support/postgres-dump.ts'
import { startTapeline } from './support/processes.ts'
import { runStatements } from './support/statements.ts'

const open = (url: string) => openPostgres({ url, poolMin: 0, poolMax: 1, applicationName: 'test' })

test('a superuser restores a dump made by a plain owner, and the owner can use it', {
  skip: databaseKinds()[0]?.skip ?? false,
}, async () => {
  const server = await createTestDatabase('native')
  const admin = open(server.url)
  const suffix = randomBytes(4).toString('hex')
  const [owner, first, second] = [`owner_${suffix}`, `first_${suffix}`, `second_${suffix}`]
  const as = (user: string | null, database: string) => {
    const url = new URL(server.url)
    url.pathname = `/${database}`
    if (user !== null) {
      url.username = user
      url.password = 'secret'
    }
    return url.href
  }
  const on = async (url: string, work: (database: ReturnType<typeof open>) => Promise<unknown>) => {
    await using database = ended(open(url), 'close')
    return await work(database)
  }
  try {
    await admin.query(`CREATE ROLE ${owner} LOGIN PASSWORD 'secret'`)
    await runStatements(server.url, `CREATE DATABASE ${first} OWNER ${owner}`)
    await on(as(owner, first), async (database) => {
      await migrate(database)
      await database.query(
        "INSERT INTO book_ticker VALUES ('2026-01-02T00:00:00Z', 'BTCUSDT', 1, 1, 1, 2, 1), ('2026-01-03T00:00:00Z', 'BTCUSDT', 2, 1, 1, 2, 1)",
      )
    })
    await restoreDatabase(as(null, first), second, await dumpDatabase(as(owner, first)))
    await using again = startTapeline(['migrate'], { env: { DATABASE_URL: as(null, second) } })
    await again.assertExit(0, 60_000)
    await on(as(null, second), (database) =>
      database.query(`GRANT tapeline_migrator, tapeline_writer, tapeline_reader TO ${owner}`),
    )
    await on(as(owner, second), async (database) => {
      await migrate(database)
      await database.query(
        "INSERT INTO book_ticker VALUES ('2026-01-02T00:00:01Z', 'BTCUSDT', 3, 1, 1, 2, 1)",
      )
      const { rows } = await database.query('SELECT update_id::int AS id FROM book_ticker ORDER BY 1')
      assert.deepEqual(rows, [{ id: 1 }, { id: 2 }, { id: 3 }])
    })
  } finally {
    for (const name of [first, second]) await dropDatabase(server.url, name)
    await admin.query(`DROP ROLE IF EXISTS ${owner}`)
    await admin.close()
    await server.drop()
  }
})
