import assert from 'node:assert/strict'
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { z } from 'zod'
import { adoptDay } from '../src/archive/adopt.ts'
import { readDayList } from '../src/foundation/archive/day-list.ts'
import { openFolderStore } from '../src/foundation/archive/folder-store.ts'
import { DAY_TABLES } from '../src/foundation/archive/tables.ts'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import { checkArchive } from '../src/tools/archive/check.ts'
import { archiveReport } from '../src/tools/archive/status.ts'
import { type ArchiveParts, createArchive, MIDNIGHT_MS } from './support/archive-parts.ts'
import { startTapeline } from './support/processes.ts'
import { bookTickerValue, gapRow, record, tradeValue } from './support/records.ts'

const DAY_MS = 86_400_000

function trade(id: number, afterMs: number, fields: Readonly<Record<string, unknown>> = {}) {
  return record(tradeValue({ t: id, T: MIDNIGHT_MS + afterMs, E: MIDNIGHT_MS + afterMs, ...fields }))
}

/** Two published days of trades, a late row, and quotes that are not published. */
async function stored(): Promise<ArchiveParts> {
  const all = await createArchive()
  await all.add('trades', [trade(1, 0), trade(2, 1, { p: '0.00000001' }), trade(1, 0, { s: 'ETHUSDT' })])
  await all.add('trades', [trade(3, DAY_MS)])
  await all.publish()
  await all.add('trades', [trade(4, 5)])
  all.hoursAgo = 4
  await all.add('bookTicker', [record(bookTickerValue())])
  all.hoursAgo = 0
  await all.add('gaps', [record(Buffer.from(JSON.stringify(gapRow())), null, { schema: 'gap/1' })])
  return all
}

async function tapeline({ folder }: Pick<ArchiveParts, 'folder'>, exitCode: number, ...args: string[]) {
  await using running = startTapeline(args, { env: { ARCHIVE_URL: folder } })
  await running.assertExit(exitCode, 30_000)
  return running.output()
}

const STATUS = z.object({
  source: z.string(),
  days: z.array(z.record(z.string(), z.unknown())),
  chains: z.array(z.record(z.string(), z.unknown())),
  newest: z.record(z.string(), z.object({ at: z.string() }).nullable()),
  problems: z.array(z.string()),
})

test('archive status shows lists, segments, late rows, chains and what is not published', async () => {
  await using all = await stored()
  const status = STATUS.parse(JSON.parse(await tapeline(all, 1, 'archive', 'status', '--json')))
  assert.deepEqual(
    status.days.map(({ table, date, list, files, rows, segmentRows, lateRows }) => [
      ...[table, date, list, files, rows, segmentRows, lateRows],
    ]),
    [
      ['raw_trades', '2024-08-09', 1, 1, 3, 1, 1],
      ['raw_trades', '2024-08-10', 1, 1, 1, 0, 0],
      ['book_ticker', '2024-08-08', null, 0, 0, 1, 0],
    ],
  )
  assert.deepEqual(
    status.chains.map(({ topic, incarnation, nextOffset }) => [topic, incarnation, nextOffset]),
    [
      ['bookTicker', 1, 1],
      ['gaps', 1, 1],
      ['trades', 1, 5],
    ],
  )
  assert.equal(status.newest['raw_trades']?.at, '2024-08-10T00:00:00.000Z')
  assert.equal(status.newest['agg_trades'], null)
  assert.deepEqual(status.problems, ['book_ticker 2024-08-08: the day is over and not published'])
  const text = await tapeline(all, 1, 'archive', 'status')
  assert.match(text, /raw_trades +\| 2024-08-09 \| 1 +\| +1 \| +3 /)
  assert.match(text, /PROBLEM: book_ticker 2024-08-08/)
  await all.publish()
  await tapeline(all, 0, 'archive', 'status')
})

test('archive status names a day as overdue a day later if it is the last one', async () => {
  await using all = await createArchive()
  await all.add('trades', [trade(1, 0)])
  const reader = await all.openReader()
  const overdueAfter = async (hours: number) => {
    const { problems } = await archiveReport(reader, MIDNIGHT_MS + hours * 3_600_000)
    return problems
  }
  const overdue = ['raw_trades 2024-08-09: the day is over and not published']
  assert.deepEqual(await overdueAfter(50), [], 'nothing shows that it is over')
  assert.deepEqual(await overdueAfter(52), overdue)
  await all.add('trades', [trade(2, DAY_MS)])
  assert.deepEqual(await overdueAfter(26), [])
  assert.deepEqual(await overdueAfter(28), overdue)
})

test('archive status allows a day that is being imported three hours after its last rows', async () => {
  await using all = await createArchive()
  await all.add('trades', [trade(1, 0)])
  await all.add('trades', [trade(2, DAY_MS)])
  await tapeline(all, 0, 'archive', 'status')
  const reader = await all.openReader()
  const { problems } = await archiveReport(reader, Date.now() + 3.1 * 3_600_000)
  assert.equal(problems.length, 2)
})

test('archive files prints the files of the newest list', async () => {
  await using all = await stored()
  const printed = await tapeline(all, 0, 'archive', 'files', '--day', '2024-08-09')
  const [path, note, ...more] = printed.trim().split('\n')
  const [key] = await all.store.list('raw_trades/date=2024-08-09')
  assert.deepEqual([path, more], [join(all.folder, key ?? ''), []])
  assert.match(note ?? '', /1 late row/)
  const list = z
    .object({ files: z.array(z.object({ path: z.string(), sha256: z.string().length(64) })) })
    .parse(JSON.parse((await tapeline(all, 0, 'archive', 'files', '--json', '--day', '2024-08-10')).trim()))
  assert.equal(list.files.length, 1)
  assert.match(await tapeline(all, 1, 'archive', 'files', '--day', '2024-08-08'), /is not published yet/)
  assert.match(await tapeline(all, 1, 'archive', 'files', '--day', '2024-01-01'), /has nothing of 2024-01-01/)
  assert.match(
    await tapeline(all, 2, 'archive', 'files', '--day', '2024-01-01', '--table', 'x'),
    /Expected one of/,
  )
})

test('archive check names what is missing, altered or foreign', async () => {
  await using all = await stored()
  assert.match(await tapeline(all, 0, 'archive', 'check'), /Nothing is wrong/)
  const wrongAfter = async (change: (path: (key: string) => string) => void) => {
    await using one = await stored()
    change((key) => join(one.folder, key))
    const found: { wrong: string[] } = JSON.parse(await tapeline(one, 1, 'archive', 'check', '--json'))
    return found.wrong.join('\n')
  }
  const plant = async (folder: string, which: number, change: (path: string) => void) => {
    await using one = await stored()
    const key = (await one.store.list(folder))[which] ?? assert.fail(`${folder} has no ${which}`)
    change(join(one.folder, key))
    const found: { wrong: string[] } = JSON.parse(await tapeline(one, 1, 'archive', 'check', '--json'))
    assert.equal(found.wrong.length > 0, true)
    return { key, text: found.wrong.join('\n') }
  }
  for (const folder of ['raw_trades/date=2024-08-09', '_segments/bookTicker']) {
    const altered = await plant(folder, 0, (path) => appendFileSync(path, 'x'))
    assert.match(altered.text, new RegExp(`${altered.key}: .* another SHA-256`))
    const removed = await plant(folder, 0, (path) => rmSync(path))
    assert.match(removed.text, new RegExp(`${removed.key}: .*(ENOENT|missing)`))
  }
  const record = await plant('_commits/trades', 2, (path) => rmSync(path))
  assert.match(record.text, /the record before it is missing/)
  const damaged = await plant('_commits/trades', 1, (path) => writeFileSync(path, '{}'))
  assert.equal(damaged.text.split('\n').length, 1, damaged.text)
  const list = await plant('_days/raw_trades/2024-08-09', 0, (path) => writeFileSync(path, '{}'))
  assert.match(list.text, new RegExp(`${list.key}: it is not a list`))
  assert.match(
    await wrongAfter((path) => writeFileSync(path('raw_trades/date=2024-08-09/mine.parquet'), '')),
    /mine\.parquet: not a file of an archive/,
  )
  assert.match(await wrongAfter((path) => mkdirSync(path('photos'))), /photos\/: not a folder of an archive/)
  assert.match(
    await wrongAfter((path) => {
      mkdirSync(path('_adopted/gaps'), { recursive: true })
      writeFileSync(path('_adopted/gaps/x.parquet'), 'no file of Parquet')
    }),
    /_adopted\/gaps\/x\.parquet: /,
  )
  const copied = await plant('_days/raw_trades/2024-08-09', 0, (path) =>
    copyFileSync(path, join(dirname(path), '00000003.json')),
  )
  assert.match(copied.text, /00000003\.json: expected .*00000002\.json/)
})

test('archive check names what the user may not read, and does not call it damaged', async () => {
  await using all = await stored()
  const reader = await all.openReader()
  const [key = ''] = await all.store.list('raw_trades/date=2024-08-09')
  mkdirSync(join(all.folder, '_adopted'))
  for (const folder of [all.folder, dirname(all.folder)]) chmodSync(folder, 0o755)
  for (const path of [key, '_adopted']) chmodSync(join(all.folder, path), 0)
  // Root may read everything.
  const isRoot = process.getuid?.() === 0
  if (isRoot) process.seteuid?.('nobody')
  const result = await checkArchive(reader).finally(() => (isRoot ? process.seteuid?.(0) : undefined))
  assert.deepEqual(result.wrong, [])
  assert.equal(result.unreadable.length, 2)
  assert.match(result.unreadable.join('\n'), new RegExp(`EACCES.*_adopted'[\\s\\S]*EACCES.*${key}`))
})

test('archive check names a day without its newest list, until the day is adopted', async () => {
  await using all = await stored()
  await all.publish()
  const { store, duckDb, folder } = all
  const [_first, newest = ''] = await store.list('_days/raw_trades/2024-08-09')
  const table = DAY_TABLES.get('raw_trades') ?? assert.fail()
  const csv = join(store.stagingFolder, 'rows.csv')
  const { files } = await readDayList(store, newest)
  const [path = ''] = files.map(({ key }) => join(folder, key))
  await duckDb.run(
    `COPY (SELECT ${table.columns.map(({ name }) => name).join()} FROM '${path}') TO '${csv}' (HEADER false)`,
  )
  const isMissing = /WRONG: _days\/raw_trades\/2024-08-09: its newest list is missing/
  rmSync(join(folder, newest))
  assert.match(await tapeline(all, 1, 'archive', 'check'), isMissing)
  for (const day of ['_days/raw_trades/2024-08-09', 'raw_trades/date=2024-08-09'])
    rmSync(join(folder, day), { recursive: true })
  assert.match(await tapeline(all, 1, 'archive', 'check'), isMissing)
  const ports = { store: openFolderStore(folder), duckDb, clock: systemClock() }
  const { added } = await adoptDay(ports, table, '2024-08-09', csv)
  assert.equal(added, 4)
  assert.match(await tapeline(all, 0, 'archive', 'check'), /Nothing is wrong/)
})

test('an archive can be the root of a volume, which has lost+found', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tapeline-volume-'))
  mkdirSync(join(folder, 'lost+found'))
  await using all = await createArchive('simulated', openFolderStore(folder))
  await all.add('trades', [trade(1, 0)])
  assert.match(await tapeline({ folder }, 0, 'archive', 'check'), /Nothing is wrong/)
  rmSync(folder, { recursive: true })
})

test('an archive whose path looks like a pattern is read alone, and not with what matches', async () => {
  const parent = mkdtempSync(join(tmpdir(), 'tapeline-pattern-'))
  const folder = join(parent, 'archive?*')
  await using all = await createArchive('simulated', openFolderStore(folder))
  await all.add('trades', [trade(1, 0), trade(2, 0)])
  await all.publish()
  await all.add('trades', [trade(3, DAY_MS)])
  cpSync(folder, join(parent, 'archive-2'), { recursive: true })
  assert.match(await tapeline({ folder }, 0, 'archive', 'check'), /Nothing is wrong/)
  assert.match(
    await tapeline({ folder }, 0, 'sql', '--archive', '--json', 'SELECT count(*) AS n FROM raw_trades'),
    /"n":3/,
  )
  rmSync(parent, { recursive: true })
})

test('a copy in the order of the operations page is complete, also while days are published', async () => {
  await using all = await stored()
  await using copy = await createArchive()
  const copied = (...names: string[]) => {
    for (const name of names) cpSync(join(all.folder, name), join(copy.folder, name), { recursive: true })
  }
  copied('_folds', '_commits', '_days')
  await all.add('trades', [trade(5, 6)])
  await all.publish()
  copied('_segments', 'raw_trades', 'book_ticker')
  assert.match(await tapeline(copy, 0, 'archive', 'check'), /note: .*not in the newest list/)
  assert.match(
    await tapeline(copy, 0, 'sql', '--archive', '--json', 'SELECT count(*) AS n FROM raw_trades'),
    /"n":5/,
  )
})

test('sql --archive prints every digit, changes nothing, and reports an error in one line', async () => {
  await using all = await stored()
  const sql = (exitCode: number, ...args: string[]) => tapeline(all, exitCode, 'sql', '--archive', ...args)
  assert.equal(
    await sql(
      0,
      `SELECT symbol, trade_id, price, taker_side, trade_time, NULL AS nothing, is_buyer_maker FROM raw_trades
       WHERE trade_time < '2024-08-10' AND symbol = 'BTCUSDT' ORDER BY trade_id`,
    ),
    [
      'symbol  | trade_id |          price | taker_side | trade_time                 | nothing | is_buyer_maker',
      '--------+----------+----------------+------------+----------------------------+---------+---------------',
      'BTCUSDT |        1 | 61837.63000000 | sell       | 2024-08-09 00:00:00+00     |         | t',
      'BTCUSDT |        2 |     0.00000001 | sell       | 2024-08-09 00:00:00.001+00 |         | t',
      'BTCUSDT |        4 | 61837.63000000 | sell       | 2024-08-09 00:00:00.005+00 |         | t',
      '(3 rows)\n',
    ].join('\n'),
  )
  assert.equal(
    await sql(
      0,
      '--json',
      'SELECT sum(price) AS a, count(*) AS b, true AS c, 9007199254740993 AS d FROM raw_trades',
    ),
    '{"a":"247350.52000001","b":5,"c":true,"d":"9007199254740993"}\n',
  )
  assert.equal(await sql(0, '--csv', `SELECT 'x,"y"' AS a, NULL AS b, '' AS c`), 'a,b,c\n"x,""y""",,""\n')
  assert.equal((await sql(0, '--csv', 'SELECT * FROM range(5000)')).split('\n').length, 5002)
  assert.match(await sql(0, 'SELECT status, count(*) FROM gaps GROUP BY ALL'), /open +\| +1/)
  assert.match(
    await sql(0, '--from', '2024-08-10', 'SELECT count(*) AS rows, min(trade_id) FROM trades'),
    / 1 \| +3\n/,
  )
  assert.match(await sql(0, "SELECT * FROM raw_trades WHERE symbol = 'btcusdt'"), /'BTCUSDT', not 'btcusdt'/)
  assert.match(await sql(0, 'DESCRIBE book_ticker'), /ask_quantity +\| DECIMAL\(20,8\)/)
  assert.match(await sql(0, 'EXPLAIN ANALYZE SELECT count(*) FROM raw_trades'), /READ_PARQUET/)
  for (const [query, said] of [
    ['CREATE TABLE mine AS SELECT 1', /Only SELECT is allowed, not CREATE/],
    [`COPY (SELECT 1) TO '${all.folder}/raw_trades/x.parquet'`, /Only SELECT is allowed, not COPY/],
    [`EXPLAIN ANALYZE COPY (SELECT 1) TO '${all.folder}/x'`, /Only SELECT is allowed, not COPY/],
    [`/* */ EXPLAIN ANALYZE COPY (SELECT 1) TO '${all.folder}/x'`, /Only SELECT is allowed, not EXPLAIN/],
    ['SELECT 1; SELECT 2', /Expected one statement, not 2/],
    ['SELECT * FROM no_such_table', /no_such_table does not exist[\s\S]*views are raw_trades, .*candles\.$/m],
    ['SELECT no_column FROM raw_trades', /no_column[\s\S]*DESCRIBE raw_trades/],
    ['SELECT 1 +', /syntax error[\s\S]*Give one SELECT/],
    ['SELECT count(*) FROM range(100000000000) AS a', /took more than 0\.5 s/],
  ] as const) {
    const output = await sql(1, '--timeout', '500ms', query)
    assert.match(output, said)
    assert.doesNotMatch(output, / {4}at |MEMORY/)
  }
  assert.match(
    await tapeline(all, 2, 'sql', '--from', '2024-08-10', 'SELECT 1'),
    /--from and --to are for --archive/,
  )
  await using none = { folder: '/nowhere/archive', [Symbol.asyncDispose]: async () => {} }
  assert.match(
    await tapeline(none, 1, 'sql', '--archive', 'SELECT 1'),
    /cannot be opened[\s\S]*Set ARCHIVE_URL/,
  )
})
