import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { after, test } from 'node:test'
import { createAuditedMarket } from './support/audited-market.ts'
import { startTapeline } from './support/processes.ts'

const PYTHON = spawnSync('python3', ['--version']).status === 0
const SCRIPT = resolve(import.meta.dirname, 'support/daily_files.py')
const folder = mkdtempSync(join(tmpdir(), 'tapeline-history-'))
after(() => rmSync(folder, { recursive: true }))

/** Writes the daily files of one day of the audited market, by an independent program. */
function writeFiles(...options: string[]): string[] {
  const { status, stdout, stderr } = spawnSync('python3', [SCRIPT, folder, '2026-01-02', ...options], {
    encoding: 'utf8',
  })
  assert.equal(status, 0, stderr)
  return stdout.trim().split('\n')
}

test('history check compares files that another program wrote with the stored day, and exits 1 for a difference', {
  skip: PYTHON ? false : 'python3 is missing',
}, async () => {
  await using market = await createAuditedMarket()
  const check = (...args: string[]) =>
    startTapeline(['history', 'check', ...args], { env: { DATABASE_URL: market.url } })
  const files = writeFiles()
  await using equal = check(...files)
  await equal.assertExit(0)
  assert.deepEqual(equal.output().match(/^ {2}equal$/gm)?.length, 2, equal.output())
  assert.match(
    equal.output(),
    /BTCUSDT-trades-2026-01-02\.zip: 24 rows, its checksum matches, times in microseconds; 24 stored/,
  )

  await market.database.query(
    "DELETE FROM trades WHERE symbol = 'BTCUSDT' AND event_type = 'trade' AND trade_id IN (1030, 1031)",
  )
  await market.database.query(
    "UPDATE trades SET price = price + 0.00000001 WHERE symbol = 'BTCUSDT' AND event_type = 'aggTrade' AND trade_id = 515",
  )
  await using different = check(...files)
  await different.assertExit(1)
  assert.match(different.output(), /in the file, not stored: 2\n {4}ids 1030 to 1031\n/)
  assert.match(
    different.output(),
    /id 515: price is 60015\.50000000 in the file, 60015\.50000001 in the store/,
  )

  const [damaged = ''] = writeFiles('--truncate')
  await using broken = check('--json', damaged)
  await broken.assertExit(1)
  const defects: ReadonlyArray<{ readonly what: string }> = JSON.parse(broken.output()).defects
  assert.match(defects.map(({ what }) => what).join(), /SHA-256 differs .*the zip file is damaged/)
  const garbled = join(folder, 'BTCUSDT-trades-2026-01-04.zip')
  const write = `import zipfile; zipfile.ZipFile('${garbled}', 'w').writestr('BTCUSDT-trades-2026-01-04.csv', '1,2\\n' * 25 + '1' * 5000)`
  assert.equal(spawnSync('python3', ['-c', write]).status, 0)
  await using wholeFirst = check(garbled)
  await wholeFirst.assertExit(1)
  assert.match(wholeFirst.output(), /wrong in the file: 26\n {4}line 26 is longer than/)
  await using missing = check(join(folder, 'BTCUSDT-trades-2026-01-03.zip'))
  await missing.assertExit(2)
  assert.match(missing.output(), /cannot be read/)
})
