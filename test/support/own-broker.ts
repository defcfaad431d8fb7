import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startKafkaBroker } from '../../src/sandbox/kafka-broker/kafka-broker.ts'
import { ensureKafkaDistribution } from '../../src/sandbox/kafka-broker/kafka-distribution.ts'
import { freePort } from '../../src/sandbox/processes/free-ports.ts'
import { CACHE_DIRECTORY } from './bounded-run.ts'
import { BROKERS_VARIABLE, brokers } from './kafka.ts'

export type OwnBroker = Awaited<ReturnType<typeof startOwnBroker>>

/** A broker that one test may stop, kill and freeze. Until its disposal `brokers()` returns it. */
export async function startOwnBroker() {
  const distributionDir = await ensureKafkaDistribution({ cacheDir: CACHE_DIRECTORY })
  const dataDir = mkdtempSync(join(tmpdir(), 'own-broker-'))
  const port = await freePort()
  const start = () => startKafkaBroker({ distributionDir, dataDir, port })
  let broker = await start()
  const shared = brokers().join()
  process.env[BROKERS_VARIABLE] = broker.brokers
  const kill = async () => {
    broker.kill()
    await broker.exited
  }
  return {
    brokers: broker.brokers,
    port,
    kill,
    /** Starts it again on the same port with its data. */
    async start() {
      broker = await start()
    },
    stop: () => broker.stop(),
    /** Suspends its process. */
    freeze: () => process.kill(broker.pid, 'SIGSTOP'),
    thaw: () => process.kill(broker.pid, 'SIGCONT'),
    async [Symbol.asyncDispose]() {
      process.env[BROKERS_VARIABLE] = shared
      await kill()
    },
  }
}
