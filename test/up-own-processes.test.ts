import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { loadSettings } from '../src/foundation/settings/load.ts'
import { requirePort } from '../src/sandbox/processes/free-ports.ts'
import { writeEndpoints } from '../src/sandbox/processes/process-registry.ts'
import { ownProcesses } from '../src/sandbox/up/own-processes.ts'

test('finds a running `up`, unless it has ended or the settings name parts of another pipeline', () => {
  const folder = mkdtempSync(join(tmpdir(), 'running-here-'))
  const run = join(folder, 'simulated', 'run')
  const own = {
    source: 'simulated',
    kafkaBrokers: '127.0.0.1:9092',
    databaseUrl: 'postgres://tapeline:p@127.0.0.1:5432/tapeline',
    ingestUrl: 'http://127.0.0.1:8080',
    consumerUrl: 'http://127.0.0.1:8081',
    archiveUrl: '',
    archive: '',
  }
  const found = (settings: Record<string, string>) =>
    ownProcesses(loadSettings({ DATA_DIR: folder, ...settings }, { cwd: folder }))
  assert.equal(found({}), null)
  writeEndpoints(run, own)
  assert.deepEqual(found({}), own)
  assert.deepEqual(found({ INGEST_PORT: '8080', KAFKA_BROKERS: '127.0.0.1:9092' }), own)
  assert.deepEqual(found({ ARCHIVE_PORT: '18082' }), own, 'a part that does not run')
  for (const other of [
    { INGEST_PORT: '18080' },
    { CONSUMER_PORT: '18081' },
    { KAFKA_BROKERS: 'kafka:9092' },
    { DATABASE_URL: 'postgres://db/tapeline' },
  ])
    assert.equal(found(other), null, JSON.stringify(other))
  const file = join(run, 'endpoints.json')
  const written = JSON.parse(readFileSync(file, 'utf8'))
  writeFileSync(file, JSON.stringify({ ...written, up: { ...written.up, startTime: 'long ago' } }))
  assert.equal(found({}), null)
})

test('a port that cannot be opened is not always reported as in use', async () => {
  await assert.rejects(requirePort(18_080, '192.0.2.1', 'INGEST_PORT'), {
    message: /192\.0\.2\.1 is not an address of this machine/,
    fix: /HTTP_HOST/,
  })
})
