import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { SETTING_NAMES } from '../src/foundation/settings/definitions.ts'

const FILE = join(resolve(import.meta.dirname, '..'), 'docker/docker-compose.yml')
const CLUSTER_FILE = FILE.replace('.yml', '.cluster.yml')
const installed = spawnSync('docker-compose', ['version'], { stdio: 'ignore' }).status === 0
const needsCompose = installed ? {} : { skip: 'docker-compose is not installed' }

/** The file as docker-compose resolves it: YAML with two spaces per level. */
function resolved(environment: Record<string, string> = {}, files = [FILE]): string {
  return execFileSync('docker-compose', [...files.flatMap((file) => ['-f', file]), 'config'], {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'] ?? '', HOME: process.env['HOME'] ?? '', ...environment },
  })
}

/** The lines below `services: <name>:`. */
function service(config: string, name: string): string {
  const match = new RegExp(`^  ${name}:\\n((?:    .*\\n|\\n)+)`, 'm').exec(config)
  assert.ok(match?.[1], `service ${name} does not exist`)
  return match[1]
}

test('docker-compose accepts the compose file, which has every part of the pipeline', needsCompose, () => {
  const config = resolved()
  for (const name of ['kafka', 'kafka-init', 'timescaledb', 'ingestion', 'consumer', 'dashboard'])
    service(config, name)
  assert.doesNotMatch(config, /zookeeper/i)
  const cluster = resolved({}, [FILE, CLUSTER_FILE])
  for (const name of ['kafka', 'kafka-2', 'kafka-3', 'consumer', 'consumer-2', 'consumer-3'])
    service(cluster, name)
  const mounts = service(cluster, 'prometheus').match(/\S+consumers\S*\.yml\b.*$/gm) ?? []
  assert.match(mounts.join(), /^[^,]*consumers\.cluster\.yml[^,]*$/, 'one replaces the other')
})

test('every published port is bound to 127.0.0.1', needsCompose, () => {
  const ports = [...resolved().matchAll(/^ {4}ports:\n((?: {4}- .*\n)+)/gm)].flatMap((match) =>
    (match[1] ?? '').trim().split(/\n\s*/),
  )
  assert.equal(ports.length, 10)
  for (const port of ports) assert.match(port, /^- 127\.0\.0\.1:\d+:\d+\/tcp$/)
})

test(
  'the services, the dashboard and the topic creation run one image, built from one Dockerfile',
  needsCompose,
  () => {
    const config = resolved()
    const builds = ['ingestion', 'consumer', 'dashboard', 'kafka-init'].map((name) => {
      const found = /build:\n {6}context: .*\n {6}dockerfile: (.*)\n[\s\S]*image: (.*)\n/.exec(
        service(config, name),
      )
      return `${found?.[1]} ${found?.[2]}`
    })
    assert.deepEqual(new Set(builds), new Set(['docker/Dockerfile tapeline:local']))
  },
)

test('a symbol in .env reaches the services without a change of the compose file', needsCompose, () => {
  const config = resolved({ SYMBOLS: 'SOLUSDT' })
  for (const name of ['ingestion', 'consumer', 'kafka-init', 'dashboard'])
    assert.match(service(config, name), /SYMBOLS: SOLUSDT/)
})

test('containers can use every setting, except those that make no sense there', () => {
  const unreachable = [
    'KAFKA_REPLICATION_FACTOR', // There is one broker.
    'KAFKA_MIN_INSYNC_REPLICAS',
    'DATA_DIR', // Only `up` stores anything there.
    'ARCHIVE_S3_ENDPOINT', // The archive is a volume.
    'ARCHIVE_S3_REGION',
    'ARCHIVE_CACHE',
    'ARCHIVE_CACHE_MB',
    'ARCHIVE_TEMP', // It has room.
  ]
  const file = readFileSync(FILE, 'utf8')
  const missing = SETTING_NAMES.filter((name) => !new RegExp(`^ +${name}(_FILE)?:`, 'm').test(file))
  // The containers' broker uses plain text for all clients.
  const expected = SETTING_NAMES.filter(
    (name) => unreachable.includes(name) || /^KAFKA_(TLS|SASL)/.test(name),
  )
  assert.deepEqual(missing, expected)
})
