import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { sleep } from '../src/foundation/runtime/backoff.ts'
import { assertConserved, createConsumerParts } from './support/consumer-parts.ts'
import { databaseKinds, POOLER_VARIABLE } from './support/database.ts'
import { assertEachOnce, LOAD_SYMBOLS, startLoad } from './support/load.ts'
import { startNativeTimescale } from './support/native-timescaledb.ts'
import { startPgBouncer } from './support/pgbouncer.ts'
import { startConsumerProcess } from './support/services.ts'
import { runStatements } from './support/statements.ts'
import { until } from './support/wait-for.ts'

/** The measurement in docs/consumer.md uses 10. */
const FAILOVERS = Number(process.env['TAPELINE_FAILOVERS'] ?? 1)
/** How long a server stays in recovery. */
const READ_ONLY_MS = 5000
const STORING_LIMIT_MS = 20_000
const isPooled = process.env[POOLER_VARIABLE] === 'pgbouncer'
const [native] = databaseKinds()
const options = { skip: native?.skip ?? false, timeout: 100_000 + FAILOVERS * 60_000 }

test(
  `F6 loses and duplicates nothing when the database fails over to a read-only server and back${isPooled ? ', through PgBouncer' : ''}`,
  options,
  async (context) => {
    const server = await startNativeTimescale({ cacheDir: process.env['TAPELINE_CACHE_DIR'] ?? tmpdir() })
    assert.ok('url' in server)
    const pooler = isPooled ? await startPgBouncer(server.url) : null
    try {
      await using parts = await createConsumerParts('migrated', server)
      // With the default backoff.
      const { BACKOFF_INITIAL_MS: _, BACKOFF_MAX_MS: __, ...env } = parts.env
      await using consumer = await startConsumerProcess({ ...env, DATABASE_URL: pooler?.url ?? server.url })
      await using traffic = startLoad(parts)
      await parts.untilTrades(1000)
      const tookMs: number[] = []
      for (let i = 0; i < FAILOVERS; i++) {
        await writeFile(join(dirname(server.logFile), 'data', 'standby.signal'), '')
        await server.restart()
        // PgBouncer reconnects 15 s after a failed attempt.
        await until(
          'health to say that the database is read-only',
          async () => /read-only/.test((await consumer.status()).reason),
          90_000,
        )
        await sleep(READ_ONLY_MS)
        const { inserted } = (await consumer.status()).counters
        await runStatements(server.url, 'SELECT pg_promote()')
        const promotedMs = performance.now()
        await until(
          'the consumer to store again',
          async () => (await consumer.status()).counters.inserted > inserted,
          STORING_LIMIT_MS,
        )
        tookMs.push(Math.round(performance.now() - promotedMs))
        await consumer.ready()
      }
      const produced = await traffic.stop()
      await parts.untilTrades(produced * LOAD_SYMBOLS.length, 60_000)
      context.diagnostic(
        `${FAILOVERS} failovers${isPooled ? ' through PgBouncer' : ''}: storing again after ${tookMs.join(', ')} ms; ${produced * LOAD_SYMBOLS.length} trades, each once`,
      )
      await until('the last flush', async () => (await consumer.status()).counters.pending === 0)
      assertConserved(await consumer.status())
      await consumer.stop()
      await assertEachOnce(parts, produced)
    } finally {
      await pooler?.stop()
      await server.stop()
    }
  },
)
