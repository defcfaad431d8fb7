import assert from 'node:assert/strict'
import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { ALL_ROWS } from '../src/foundation/archive/archive-snapshot.ts'
import { newestDayList } from '../src/foundation/archive/day-list.ts'
import { CHUNK_ROWS } from '../src/foundation/archive/row-chunk.ts'
import type { FetchedMessage } from '../src/foundation/kafka/codec/record-batch.ts'
import { queryArchive } from '../src/tools/archive/query.ts'
import { type ArchiveParts, createArchive, MIDNIGHT_MS } from './support/archive-parts.ts'
import { columns } from './support/columns.ts'
import { startTapeline } from './support/processes.ts'
import { eventValue, gapRow, record } from './support/records.ts'

const DATE = '2024-08-09'

type Levels = ReadonlyArray<readonly [price: string, quantity: string]>

/** A diff of update ids from `U` to `u`, which happened `u` milliseconds after midnight. */
function diff(U: number, u: number, b: Levels, a: Levels = [], s = 'BTCUSDT', E = MIDNIGHT_MS + u) {
  return record(eventValue('depth', { E, s, U, u, b, a }))
}

function snapshot(lastUpdateId: number, bids: Levels, asks: Levels, limit = 5000): FetchedMessage {
  const receivedMs = MIDNIGHT_MS + lastUpdateId
  const stamps = { ingestion_timestamp: receivedMs, ingestion_timestamp_us: receivedMs * 1000 }
  return record(eventValue('depthSnapshot', { lastUpdateId, limit, bids, asks, ...stamps }))
}

const COLUMNS =
  'symbol, first_update_id::INTEGER, last_update_id::INTEGER, side, level, price::VARCHAR, quantity::VARCHAR'

/** The rows as a reader has them, in their order, without trailing zeros of decimals. */
async function depthIn(archive: ArchiveParts): Promise<string[]> {
  const reader = await archive.openReader()
  const rows = await reader.read(async (at) =>
    reader.duckDb.rows<object>(
      `SELECT ${COLUMNS} FROM (${await at.relation('depth')}) ORDER BY symbol, last_update_id, side, level`,
    ),
  )
  return rows.map(lineOf)
}

async function conflictsIn({ store, duckDb }: ArchiveParts): Promise<string[]> {
  const list = await newestDayList(store, 'depth', DATE)
  const paths = await Promise.all((list?.conflicts ?? []).map(({ key }) => store.localCopy(key)))
  const from = `read_parquet([${paths.map((path) => `'${path}'`).join()}])`
  return (await duckDb.rows<object>(`SELECT ${COLUMNS} FROM ${from}`)).map(lineOf)
}

function lineOf(row: object): string {
  return Object.values(row)
    .join(' ')
    .replaceAll(/\.?0+(?= |$)/g, '')
}

test('each level is a row with every digit, and a diff without levels one without a side', async () => {
  await using archive = await createArchive()
  const bids = [
    ['90071992.54740991', '0.00000001'],
    ['0.00000001', '0'],
  ] as const
  await archive.add('depth', [
    diff(5, 7, bids, [['61837.64', '1.5']]),
    diff(8, 8, []),
    snapshot(9, bids, []),
    snapshot(10, [], []),
  ])
  const reader = await archive.openReader()
  await reader.read(async (at) => {
    const rows = async (table: string, columns: string) =>
      (
        await reader.duckDb.rows<object>(`SELECT ${columns} FROM (${await at.relation(table)}) ORDER BY ALL`)
      ).map((row) => Object.values(row))
    const levels = 'side, level, price::VARCHAR, quantity::VARCHAR'
    assert.deepEqual(await rows('depth', `first_update_id, last_update_id, ${levels}`), [
      [5n, 7n, 'ask', 1, '61837.64000000', '1.50000000'],
      [5n, 7n, 'bid', 1, '90071992.54740991', '0.00000001'],
      [5n, 7n, 'bid', 2, '0.00000001', '0.00000000'],
      [8n, 8n, null, null, null, null],
    ])
    assert.deepEqual(await rows('depth_snapshots', `last_update_id, level_limit, ${levels}`), [
      [9n, 5000, 'bid', 1, '90071992.54740991', '0.00000001'],
      [9n, 5000, 'bid', 2, '0.00000001', '0.00000000'],
      [10n, 5000, null, null, null, null],
    ])
    for (const [view, row] of [
      ['depth_levels', '5 7 ask 1 61837.64 1.5'],
      ['depth_snapshot_levels', '9 rest bid 1 90071992.54740991 0.00000001'],
    ] as const) {
      const sql = `SELECT * FROM ${view} ORDER BY last_update_id, side, level LIMIT 1`
      const [first] = await queryArchive(
        reader,
        { sql, range: ALL_ROWS, timeoutMs: 60_000 },
        async (portions) => {
          for await (const some of portions) return some.rows
          return []
        },
      )
      assert.ok(lineOf(first ?? {}).includes(row), lineOf(first ?? {}))
    }
    assert.deepEqual(await rows('depth', 'DISTINCT symbol, epoch, epoch_us(ingestion_timestamp)'), [
      ['BTCUSDT', 0, 1723161255400123n],
    ])
  })
})

test('a diff with a level that the tables cannot hold is a dead letter, as in the consumer', async () => {
  await using archive = await createArchive()
  await archive.add('depth', [
    diff(1, 1, [['90071992.54740991', '1']]),
    diff(2, 2, [['90071992.54740992', '1']]),
    diff(3, 3, [['123456789', '1']], [['0.00000001', '1']]),
    snapshot(3, [], [['1', '90071992.54740992']]),
  ])
  const keys = await archive.store.list('_segments')
  const letters = keys.filter((key) => key.endsWith('dead_letters.parquet'))
  const paths = await Promise.all(letters.map((key) => archive.store.localCopy(key)))
  const reasons = await archive.duckDb.rows<object>(
    `SELECT json->>'$.reason' FROM read_parquet([${paths.map((path) => `'${path}'`).join()}])`,
  )
  assert.deepEqual(
    reasons.flatMap((row) => Object.values(row)),
    Array.from({ length: 3 }, () => 'a level does not fit'),
  )
  assert.deepEqual(await depthIn(archive), ['BTCUSDT 1 1 bid 1 90071992.54740991 1'])
})

test('a snapshot of more levels than a chunk of rows is whole and in order, also after compaction', async () => {
  await using archive = await createArchive()
  const levels = (first: number, step: number): Levels =>
    Array.from({ length: 5000 }, (_, i) => [String(first + step * i), String(i + 1)])
  await archive.add('depth', [snapshot(3, levels(60_000, -1), levels(60_001, 1)), diff(4, 4, [])])
  for (const _ of [1, 2]) {
    const reader = await archive.openReader()
    const [found] = await reader.read(async (at) =>
      reader.duckDb.rows<object>(
        `SELECT count(*)::INTEGER AS rows, count(*) FILTER (price = 60000 - level + 1 AND quantity = level)::INTEGER AS bids,
           count(*) FILTER (price = 60000 + level AND quantity = level)::INTEGER AS asks
         FROM (${await at.relation('depth_snapshots')})`,
      ),
    )
    assert.deepEqual(Object.values(found ?? {}), [10_000, 5000, 5000])
    await archive.publish()
  }
  assert.ok(CHUNK_ROWS < 10_000)
  const [snapshots] = (await newestDayList(archive.store, 'depth_snapshots', DATE))?.symbols['BTCUSDT'] ?? []
  assert.deepEqual(snapshots, { epoch: 0, rows: 10_000, firstId: 3, lastId: 3, missingIds: null })
})

test('a diff that is delivered again is there once: in segments, in the published day, and late', async () => {
  await using archive = await createArchive()
  const one = diff(1, 3, [
    ['1', '1'],
    ['2', '2'],
  ])
  const other = diff(4, 4, [], [['3', '3']])
  const expected = ['BTCUSDT 1 3 bid 1 1 1', 'BTCUSDT 1 3 bid 2 2 2', 'BTCUSDT 4 4 ask 1 3 3']
  await archive.add('depth', [one, one, other])
  await archive.add('depth', [one])
  assert.deepEqual(await depthIn(archive), expected)
  const [published] = await archive.publish()
  assert.deepEqual([published?.rows, published?.duplicates, published?.conflicts], [3, 4, null])
  assert.deepEqual(await depthIn(archive), expected)
  await archive.add('depth', [other, one])
  assert.deepEqual(await depthIn(archive), expected)
  const [again] = await archive.publish()
  assert.deepEqual([again?.number, again?.rows, again?.duplicates, again?.conflicts], [2, 3, 3, null])
  assert.deepEqual(await depthIn(archive), expected)
})

test('of two diffs of one identity the first stays whole, and the other is whole in a file of conflicts', async () => {
  await using archive = await createArchive()
  const first = diff(1, 3, [
    ['1', '1'],
    ['2', '2'],
  ])
  const others = [
    diff(1, 3, [['1', '1']]),
    diff(1, 3, [
      ['1', '1'],
      ['2', '2'],
      ['3', '3'],
    ]),
    diff(1, 3, [['1', '1']], [['2', '2']]),
  ]
  const same = diff(4, 4, [['5', '5']])
  const expected = ['BTCUSDT 1 3 bid 1 1 1', 'BTCUSDT 1 3 bid 2 2 2', 'BTCUSDT 4 4 bid 1 5 5']
  await archive.add('depth', [first, same])
  for (const other of others) await archive.add('depth', [other, same])
  assert.deepEqual(await depthIn(archive), expected)
  const [published] = await archive.publish()
  assert.deepEqual([published?.rows, published?.duplicates, published?.conflicts?.rows], [3, 9, 6])
  assert.deepEqual(await depthIn(archive), expected)
  assert.deepEqual(await conflictsIn(archive), [
    'BTCUSDT 1 3 bid 1 1 1',
    ...['BTCUSDT 1 3 bid 1 1 1', 'BTCUSDT 1 3 bid 2 2 2', 'BTCUSDT 1 3 bid 3 3 3'],
    ...['BTCUSDT 1 3 ask 1 2 2', 'BTCUSDT 1 3 bid 1 1 1'],
  ])
})

test('the list of a day counts the ids that no diff covers, also where diffs overlap, and names the ledger', async () => {
  await using archive = await createArchive()
  const level: Levels = [['1', '1']]
  await archive.add('depth', [
    ...[diff(10, 19, level), diff(15, 24, level), diff(20, 22, level), diff(30, 31, level)],
    ...[diff(100, 101, level, [], 'ETHUSDT'), diff(102, 102, [], [], 'ETHUSDT')],
  ])
  await archive.publish()
  const before = await newestDayList(archive.store, 'depth', DATE)
  assert.deepEqual(before?.symbols, {
    BTCUSDT: [{ epoch: 0, rows: 4, firstId: 10, lastId: 31, missingIds: 5 }],
    ETHUSDT: [{ epoch: 0, rows: 2, firstId: 100, lastId: 102, missingIds: 0 }],
  })
  assert.equal(before?.verdict, 'unexplained')
  const hole = gapRow({
    ...{ event_type: 'depth', from_id: 25, to_id: 29, status: 'unrecoverable' },
    ...{ from_time: MIDNIGHT_MS + 24, to_time: MIDNIGHT_MS + 31 },
  })
  await archive.add('gaps', [record(Buffer.from(JSON.stringify(hole)))])
  await archive.publish()
  const { verdict, missing } = (await newestDayList(archive.store, 'depth', DATE)) ?? assert.fail()
  assert.deepEqual(
    [verdict, missing.map(({ from_id, to_id }) => [from_id, to_id])],
    ['incomplete', [[25, 29]]],
  )
})

test('without depth the archive has no folder and no file of it', async () => {
  await using archive = await createArchive()
  await archive.add('trades', [record(eventValue('trade'))])
  await archive.publish()
  const keys = await archive.store.list('')
  assert.deepEqual(
    keys.filter((key) => key.includes('depth')),
    [],
  )
})

for (const format of ['parquet', 'csv'] as const)
  test(`export --archive writes the levels of a symbol and day as ${format}`, async () => {
    await using archive = await createArchive()
    const levels: Levels = [
      ['2', '1.5'],
      ['1', '0'],
    ]
    await archive.add('depth', [
      ...[diff(4, 4, []), diff(1, 3, levels, levels), diff(1, 1, levels, [], 'ETHUSDT')],
      snapshot(4, levels, []),
    ])
    await archive.publish()
    const out = join(archive.folder, '..', `exported-${format}-${process.pid}`)
    const args = ['--day', DATE, '--archive', '--no-verify', '--format', format, '--out', out]
    const env = { ARCHIVE_URL: archive.folder }
    await using refused = startTapeline(
      ['export', 'BTCUSDT', '--day', DATE, '--type', 'depth', '--out', out],
      { env },
    )
    await refused.assertExit(2, 60_000)
    assert.match(refused.output(), /only an archive has a row per level/)
    await using exporting = startTapeline(['export', 'BTCUSDT', '--type', 'depth,depthSnapshot', ...args], {
      env,
    })
    await exporting.assertExit(0, 60_000)
    const rows = async (type: string, columns: string) => {
      const path = join(out, `BTCUSDT-${type}-${DATE}.${format}`)
      const found = await archive.duckDb.rows<object>(`SELECT ${columns} FROM '${path}'`)
      return found.map((row) => Object.values(row).join(' '))
    }
    const level = 'side, level, price::DECIMAL(20,8)::VARCHAR, quantity::DECIMAL(20,8)::VARCHAR'
    assert.deepEqual(await rows('depth', `last_update_id, ${level}`), [
      ...['3 ask 1 2.00000000 1.50000000', '3 ask 2 1.00000000 0.00000000'],
      ...['3 bid 1 2.00000000 1.50000000', '3 bid 2 1.00000000 0.00000000', '4    '],
    ])
    assert.deepEqual(await rows('depthSnapshot', `last_update_id, level_limit, ${level}`), [
      ...['4 5000 bid 1 2.00000000 1.50000000', '4 5000 bid 2 1.00000000 0.00000000'],
    ])
    const manifest = JSON.parse(
      readFileSync(join(out, `BTCUSDT-depth-depthSnapshot-${DATE}.${format}.manifest.json`), 'utf8'),
    )
    assert.deepEqual(columns(manifest.files, 'type', 'rows'), [
      ['depth', 5],
      ['depthSnapshot', 2],
    ])
    rmSync(out, { recursive: true })
  })
