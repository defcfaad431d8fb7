import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { loadSettings } from '../src/foundation/settings/load.ts'
import { requirePort } from '../src/sandbox/processes/free-ports.ts'
import { writeEndpoints } from '../src/sandbox/processes/process-registry.ts'
import { ownProcesses } from '../src/sandbox/up/own-processes.ts'

test('ignores a running `up` when the settings name parts of another pipeline', () => {
  const folder = mkdtempSync(join(tmpdir(), 'running-here-'))
  const run = join(folder, 'simulated', 'run')
  mkdirSync(run, { recursive: true })
  const own = {
    source: 'simulated',
    kafkaBrokers: '127.0.0.1:9092',
    databaseUrl: 'postgres://tapeline:p@127.0.0.1:5432/tapeline',
    ingestUrl: 'http://127.0.0.1:8080',
    consumerUrl: 'http://127.0.0.1:8081',
  }
  const found = (settings: Record<string, string>) =>
    ownProcesses(loadSettings({ DATA_DIR: folder, ...settings }, { cwd: folder }))
  assert.equal(found({}), null)
  writeEndpoints(run, own)
  assert.deepEqual(found({}), own)
  assert.deepEqual(found({ INGEST_PORT: '8080', KAFKA_BROKERS: '127.0.0.1:9092' }), own)
  for (const other of [
    { INGEST_PORT: '18080' },
    { CONSUMER_PORT: '18081' },
    { KAFKA_BROKERS: 'kafka:9092' },
    { DATABASE_URL: 'postgres://db/tapeline' },
  ])
    assert.equal(found(other), null, JSON.stringify(other))
})

test('a port that cannot be opened is not always reported as in use', async () => {
  await assert.rejects(requirePort(18_080, '192.0.2.1', 'INGEST_PORT'), {
    message: /192\.0\.2\.1 is not an address of this machine/,
    fix: /HTTP_HOST/,
  })
})
