import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { type KafkaBroker, startKafkaBroker } from '../src/sandbox/kafka-broker/kafka-broker.ts'
import { ensureKafkaDistribution } from '../src/sandbox/kafka-broker/kafka-distribution.ts'
import { freePort } from '../src/sandbox/processes/free-ports.ts'
import { CACHE_DIRECTORY } from './support/bounded-run.ts'
import { brokerProperties, readCompose } from './support/compose.ts'
import { withAdmin } from './support/kafka-clients.ts'
import { startTapeline } from './support/processes.ts'

const IN_CONTAINERS = { PLAINTEXT: 29092, PLAINTEXT_HOST: 9092, CONTROLLER: 29093 }

let folder: string
let broker: KafkaBroker
/** Substitutes for the two addresses in the compose file: the broker's name, and the host's. */
let at: { readonly inside: string; readonly ports: string }

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kafka-listeners-'))
  const { kafka } = readCompose('docker-compose.yml').services
  assert.ok(kafka)
  const ports = new Map<number, number>()
  for (const port of Object.values(IN_CONTAINERS)) ports.set(port, await freePort())
  const here = (port: number) => ports.get(port) ?? assert.fail(`port ${port}`)
  // The data directory is a local one.
  const { 'log.dirs': _, ...properties } = brokerProperties(kafka)
  const moved = Object.entries(properties).map(([name, value]) => [
    name,
    value
      .replaceAll('kafka:', '127.0.0.1:')
      .replaceAll('://:', '://127.0.0.1:')
      .replaceAll(/:(\d{4,5})\b/g, (_, port: string) => `:${here(Number(port))}`),
  ])
  at = {
    inside: `127.0.0.1:${here(IN_CONTAINERS.PLAINTEXT)}`,
    ports: `localhost:${here(IN_CONTAINERS.PLAINTEXT_HOST)}`,
  }
  broker = await startKafkaBroker({
    distributionDir: await ensureKafkaDistribution({ cacheDir: CACHE_DIRECTORY }),
    dataDir: join(folder, 'broker'),
    port: here(IN_CONTAINERS.PLAINTEXT),
    heapMebibytes: 256,
    extraProperties: Object.fromEntries(moved),
  })
})

after(async () => {
  await broker?.stop()
  await rm(folder, { recursive: true, force: true })
})

test("the compose file's broker sends clients inside to its name, and clients of the host to localhost", async () => {
  assert.deepEqual(await addressesToldTo(at.inside), [at.inside])
  assert.deepEqual(await addressesToldTo(at.ports), [at.ports])
})

test("the compose file's broker creates no topics implicitly, and those of `topics init` look the same to both kinds of clients", async () => {
  assert.deepEqual(await topicsAt(at.ports), [])
  await startTapeline(['topics', 'init'], { env: { KAFKA_BROKERS: at.inside } }).assertExit(0, 30_000)
  const topics = await topicsAt(at.ports)
  assert.equal(topics.filter((name) => name.startsWith('binance.')).length, 6)
  assert.deepEqual(await topicsAt(at.inside), topics)
  const again = startTapeline(['topics', 'init'], { env: { KAFKA_BROKERS: at.ports } })
  await again.assertExit(0, 30_000)
  assert.equal(again.output().match(/ present /g)?.length, 6, again.output())
  await assert.rejects(
    withAdmin([at.ports], (admin) =>
      admin.metadata({ topics: ['by.accident'], autocreateTopics: true, forceUpdate: true }),
    ),
  )
  assert.deepEqual(await topicsAt(at.inside), topics)
})

function addressesToldTo(bootstrap: string): Promise<string[]> {
  return withAdmin([bootstrap], async (admin) => {
    const { brokers } = await admin.metadata({ topics: [], forceUpdate: true })
    return [...brokers.values()].map(({ host, port }) => `${host}:${port}`)
  })
}

function topicsAt(bootstrap: string): Promise<string[]> {
  return withAdmin([bootstrap], async (admin) => (await admin.listTopics()).toSorted())
}
