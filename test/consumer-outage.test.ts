import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { test } from 'node:test'
import { identify } from '../src/sandbox/processes/process-identity.ts'
import { assertConserved, createConsumerParts } from './support/consumer-parts.ts'
import { databaseKinds } from './support/database.ts'
import { assertEachOnce, LOAD_SYMBOLS, startLoad } from './support/load.ts'
import { type NativeTimescale, startNativeTimescale } from './support/native-timescaledb.ts'
import { descendantsOf, signalIfRunning } from './support/process-tree.ts'
import { startConsumerProcess } from './support/services.ts'
import { until } from './support/wait-for.ts'

/** The measurement in docs/consumer.md uses 60. */
const OUTAGE_S = Number(process.env['TAPELINE_OUTAGE_SECONDS'] ?? 5)
const [native] = databaseKinds()
const options = { skip: native?.skip ?? false, timeout: 120_000 + OUTAGE_S * 2000 }

/** Each way for a database to become unavailable, and to return. */
const OUTAGES: Record<string, (server: NativeTimescale) => Promise<() => Promise<void>>> = {
  'is killed and restarted': async (server) => {
    await server.kill()
    return () => server.restart()
  },
  'hangs and continues (SIGSTOP)': async (server) => {
    const all = [identify(server.pid), ...descendantsOf(server.pid)].filter((one) => one !== null)
    for (const one of all) signalIfRunning(one, 'SIGSTOP')
    return async () => {
      for (const one of all) signalIfRunning(one, 'SIGCONT')
    }
  },
}

for (const [what, begin] of Object.entries(OUTAGES)) {
  test(
    `F6 loses nothing and buffers no more while the database ${what}, and resumes automatically`,
    options,
    async (context) => {
      const server = await startNativeTimescale({ cacheDir: process.env['TAPELINE_CACHE_DIR'] ?? tmpdir() })
      assert.ok('url' in server)
      try {
        await using parts = await createConsumerParts('migrated', server)
        // With the default backoff: the time to readiness depends on it.
        const { BACKOFF_INITIAL_MS: _, BACKOFF_MAX_MS: __, ...env } = parts.env
        await using consumer = await startConsumerProcess(env)
        const residentMiB = () =>
          Math.round(
            Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${consumer.command.pid}/status`, 'utf8'))?.[1]) /
              1024,
          )
        await using traffic = startLoad(parts)
        await parts.untilTrades(5000)
        await consumer.ready()
        const before = residentMiB()

        const end = await begin(server)
        const startedMs = performance.now()
        const producedBefore = traffic.produced
        let most = 0
        let held = 0
        await until(
          'health to report the outage, and its end',
          async () => {
            const status = await consumer.status()
            held = Math.max(held, status.counters.pending)
            most = Math.max(most, residentMiB())
            return !status.ready && performance.now() - startedMs > OUTAGE_S * 1000
          },
          (OUTAGE_S + 30) * 1000,
        )
        const { reason } = await consumer.status()
        assert.match(reason, /the last flush failed|has not taken a batch/)
        assert.ok(traffic.produced > producedBefore)
        await end()
        const endedMs = performance.now()
        await consumer.ready(90_000)
        const recoveredMs = performance.now() - endedMs

        const produced = await traffic.stop()
        await parts.untilTrades(produced * LOAD_SYMBOLS.length, 60_000)
        context.diagnostic(
          `down for ${Math.round((endedMs - startedMs) / 1000)} s; ready again after ${Math.round(recoveredMs)} ms; at most ${held} messages buffered; ` +
            `resident ${before} MiB before, at most ${most} MiB meanwhile; health said: ${reason}`,
        )
        // Four sealed batches, one in the database, and the messages of one fetch.
        assert.ok(held < 20_000, `${held} messages were buffered`)
        assert.ok(most < 250, `${most} MiB were resident`)
        await until('the last flush', async () => (await consumer.status()).counters.pending === 0)
        assertConserved(await consumer.status())
        await consumer.stop()
        await assertEachOnce(parts, produced)
      } finally {
        await server.stop()
      }
    },
  )
}
