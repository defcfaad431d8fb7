import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { loadSettings } from '../src/foundation/settings/load.ts'
import { checkDatabase } from '../src/tools/doctor/database.ts'
import { databaseKinds } from './support/database.ts'
import { startNativeTimescale } from './support/native-timescaledb.ts'
import { startPgBouncer } from './support/pgbouncer.ts'
import { runStatements } from './support/statements.ts'

const [native] = databaseKinds()

test('doctor reports a pooler, a read-only database, other session settings, and too few locks', {
  skip: native?.skip ?? false,
}, async () => {
  const server = await startNativeTimescale({ cacheDir: process.env['TAPELINE_CACHE_DIR'] ?? tmpdir() })
  assert.ok('url' in server)
  const pooler = await startPgBouncer(server.url)
  const findings = async (url: string) => {
    const found = await checkDatabase(loadSettings({ DATABASE_URL: url }, { cwd: tmpdir() }))
    return new Map(found.map((finding) => [finding.what, finding]))
  }
  try {
    await runStatements(server.url, 'CREATE EXTENSION timescaledb')
    const plain = await findings(server.url)
    assert.equal(plain.get('pooler')?.text, 'none')
    assert.equal(plain.get('writing')?.verdict, 'good')
    assert.equal(plain.get('lock limit')?.verdict, 'good')

    await runStatements(
      server.url,
      "ALTER DATABASE postgres SET datestyle = 'SQL, DMY'",
      "ALTER DATABASE postgres SET timezone = 'Asia/Tokyo'",
      'ALTER DATABASE postgres SET search_path = one, public',
      'ALTER DATABASE postgres SET default_transaction_read_only = on',
      'ALTER SYSTEM SET max_locks_per_transaction = 10',
      'ALTER SYSTEM SET max_connections = 30',
    )
    await server.restart()
    const set = await findings(server.url)
    assert.match(set.get('session settings')?.text ?? '', /TimeZone = Asia\/Tokyo/)
    assert.match(set.get('session settings')?.text ?? '', /DateStyle = SQL, DMY/)
    assert.equal(set.get('search_path')?.text, 'one, public')
    assert.equal(set.get('writing')?.verdict, 'warning')
    assert.match(set.get('lock limit')?.text ?? '', /max_locks_per_transaction = 10\b/)

    await writeFile(join(dirname(server.logFile), 'data', 'standby.signal'), '')
    await server.restart()
    assert.equal((await findings(server.url)).get('writing')?.verdict, 'bad')
    await runStatements(server.url, 'SELECT pg_promote()')
    assert.match((await findings(pooler.url)).get('pooler')?.text ?? '', /^present;/)
  } finally {
    await pooler.stop()
    await server.stop()
  }
})
