import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { markArchive } from '../src/foundation/archive/archive-mark.ts'
import { CommitChain, chainsOf } from '../src/foundation/archive/commit-chain.ts'
import { openFolderStore } from '../src/foundation/archive/folder-store.ts'
import type { ArchiveStatus } from '../src/foundation/telemetry/status.ts'
import { freePort } from '../src/sandbox/processes/free-ports.ts'
import type { Snapshot } from '../src/tools/dashboard/page/snapshot.ts'
import { column } from './support/columns.ts'
import { startTapeline } from './support/processes.ts'
import { fetchStatus } from './support/services.ts'
import { until } from './support/wait-for.ts'

const START_TIMEOUT_MS = 120_000

test('an archive without a database is shown as such everywhere, survives a kill, and continues beside a database', {
  timeout: 300_000,
}, async () => {
  const cwd = mkdtempSync(join(tmpdir(), 'up-'))
  const archivePort = await freePort()
  const env = {
    INGEST_PORT: String(await freePort()),
    CONSUMER_PORT: String(await freePort()),
    ARCHIVE_PORT: String(archivePort),
    DASHBOARD_PORT: String(await freePort()),
    ARCHIVE_FLUSH_INTERVAL_MS: '1000',
  }
  const run = (...args: string[]) => startTapeline(args, { cwd, env })
  const archived = async () => {
    const { rows } = await fetchStatus<ArchiveStatus>(`http://127.0.0.1:${archivePort}`)
    return Object.values(rows).reduce((sum, one) => sum + one, 0)
  }
  const inFiles = async () => {
    const store = openFolderStore(join(cwd, '.tapeline', 'simulated', 'archive'))
    const chains = await chainsOf(store)
    const records = await Promise.all(chains.map((one) => new CommitChain(store, one).records()))
    return records
      .flat()
      .flatMap(({ files }) => column(files, 'rows'))
      .reduce((sum, one) => sum + one, 0)
  }
  await using first = run('up', '--simulate', '--archive', '--no-database')
  await until('archived rows', async () => (await archived()) > 500, START_TIMEOUT_MS)
  const shown = await until('the archive on the dashboard', async () => {
    const response = await fetch(`http://127.0.0.1:${env.DASHBOARD_PORT}/snapshot`)
    const snapshot = (await response.json()) as Snapshot
    return (snapshot.archive?.rows ?? 0) > 500 ? snapshot : null
  })
  const { hasDatabase, stored, problems, parts } = shown
  assert.deepEqual([hasDatabase, stored, problems], [false, null, []])
  assert.deepEqual(column(parts, 'name'), ['ingestion', 'archive'])
  await using status = run('status')
  await status.assertExit(0)
  assert.match(status.output(), /● archive/)
  for (const args of [['sql', 'SELECT 1'], ['dead-letters', 'list'], ['verify']]) {
    await using refused = run(...args)
    await refused.exit()
    assert.match(refused.output(), /no database[\s\S]*--archive/, args[0])
  }
  await using sql = run('sql', '--archive', '--csv', 'SELECT count(*) > 0 FROM raw_trades')
  await sql.assertExit(0)
  assert.match(sql.output(), /^t$/m)
  first.signal('SIGKILL')
  await first.exit()
  const before = await inFiles()

  await using second = run('up', '--simulate', '--archive', '--for', '3s')
  await second.assertExit(0, START_TIMEOUT_MS)
  assert.match(second.output(), /kafka \(process \d+\), left over from a killed run/)
  assert.match(second.output(), /Archived [\d,]+ rows.*:[\s\S]* raw_trades +[\d,]+/)
  assert.match(second.output(), /The archive is in \.tapeline\/simulated\/archive/)
  assert.ok((await inFiles()) > before)
  await using kept = run('sql', '--archive', '--csv', 'SELECT count(*) > 0 FROM raw_trades')
  await kept.assertExit(0)
  const other = openFolderStore(join(cwd, '.tapeline/binance/archive'))
  await other.prepare()
  await markArchive(other, { source: 'binance', timeUnit: 'millisecond' })
  await using several = run('archive', 'status')
  await several.assertExit(1)
  assert.match(several.output(), /several archives[\s\S]*binance\/archive, .*simulated\/archive/)
})

test('refuses to store rows nowhere', async () => {
  await using up = startTapeline(['up', '--simulate', '--no-database'])
  await up.assertExit(2)
  assert.match(up.output(), /--no-database requires --archive/)
})

test('a folder that cannot be written ends `up` at the start, with the fix', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'tapeline-up-'))
  const env = { ARCHIVE_URL: '/proc/x', DATA_DIR: dataDir }
  await using up = startTapeline(['up', '--simulate', '--archive', '--no-database'], { env })
  await up.assertExit(1)
  assert.match(up.output(), /The archive \/proc\/x cannot be written: ENOENT[\s\S]*Set ARCHIVE_URL/)
  assert.doesNotMatch(up.output(), /kafka/)
  rmSync(dataDir, { recursive: true })
})
