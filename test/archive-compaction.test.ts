import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { compact } from '../src/archive/compaction.ts'
import { duckDbCompaction } from '../src/archive/day-merge.ts'
import { markForSweep, sweep } from '../src/archive/sweep.ts'
import { ArchiveReader } from '../src/foundation/archive/archive-reader.ts'
import { ALL_ROWS } from '../src/foundation/archive/archive-snapshot.ts'
import { CommitChain } from '../src/foundation/archive/commit-chain.ts'
import { newestDayList } from '../src/foundation/archive/day-list.ts'
import { openDuckDb, quoted } from '../src/foundation/archive/duckdb.ts'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import { type ArchiveParts, createArchive, MIDNIGHT_MS } from './support/archive-parts.ts'
import { record, TOPIC_ID, tradeValue } from './support/records.ts'

const SYMBOLS = ['BTCUSDT', 'ETHUSDT', 'BNBUSDT']
const ROWS = 120_000
const SEGMENTS = 4
/** One of this many rows of a segment comes again in the next one, with another price. */
const REPEAT = 7
const FIRST = '1.00000000'
const REPEATED = '2.00000000'

function trade(id: number, p: string) {
  const s = SYMBOLS[id % SYMBOLS.length]
  // Some trades of a symbol have one time.
  const T = MIDNIGHT_MS + Math.floor(id / 10)
  return record(tradeValue({ t: id, s, p, T, E: T }))
}

const DATE = '2024-08-09'

async function listOf({ store }: ArchiveParts) {
  return (await newestDayList(store, 'raw_trades', DATE)) ?? assert.fail('not published')
}

/** Commits a segment of the engine's rows: the ids of a day from 0 on, at a price. Its record says `recorded`. */
async function plant(
  { store, duckDb }: ArchiveParts,
  rows: number,
  price: string,
  recorded = rows,
): Promise<void> {
  const partition = { topic: 'trades', topicId: TOPIC_ID, partition: 0 }
  const chain = new CommitChain(store, partition)
  const head = (await chain.head()) ?? (await chain.begin({ firstOffset: 0, at: 0 }))
  const key = chain.segmentKey(head.incarnation, head.nextOffset, crypto.randomUUID(), 'raw_trades')
  const time = `make_timestamptz(${MIDNIGHT_MS * 1000} + id * 10)`
  const written = await store.putFile(key, (path) =>
    duckDb.run(`COPY (SELECT ${time} AS trade_time, ${time} AS event_time, 'BTCUSDT' AS symbol, 0 AS epoch, id AS trade_id,
      ${price}::DECIMAL(20,8) AS price, 1::DECIMAL(20,8) AS quantity, true AS is_buyer_maker, ${time} AS ingestion_timestamp,
      'stream' AS source, ${head.nextOffset} + id AS _offset FROM range(${rows}) AS ids(id)) TO ${quoted(path)} (FORMAT parquet)`),
  )
  const { incarnation, nextOffset, leaderEpoch } = head
  await chain.commit(incarnation, {
    ...{ segment: key, firstOffset: nextOffset, nextOffset: nextOffset + rows, leaderEpoch, lost: 0 },
    committedAt: Date.now(),
    files: [{ table: 'raw_trades', key, rows, ...written, days: { [DATE]: recorded } }],
  })
}

test('a day whose every row came again is read and published with little memory', async () => {
  await using archive = await createArchive()
  const rows = 800_000
  await plant(archive, rows, '1')
  await plant(archive, rows, 'CASE WHEN id % 80000 = 7 THEN 2 ELSE 1 END')
  const little = { memoryBytes: 160 << 20, tempFolder: join(archive.folder, 'little') }
  const reader = await ArchiveReader.open({ url: archive.folder, ...little })
  const engine = await openDuckDb({ ...little, threads: 1 })
  try {
    const counted = await reader.read(async (snapshot) =>
      reader.duckDb.rows<object>(
        `SELECT count(*)::INTEGER AS rows, max(price)::VARCHAR AS price FROM (${await snapshot.relation('raw_trades')})`,
      ),
    )
    assert.deepEqual(counted, [{ rows, price: FIRST }])
    const ports = duckDbCompaction(archive.store, await engine.connect(), systemClock())
    const [published] = await compact(ports, () => true)
    assert.deepEqual([published?.rows, published?.duplicates, published?.conflicts?.rows], [rows, rows, 10])
  } finally {
    engine.close()
    await reader.close()
  }
})

test('of rows in several partitions the one that was committed first stays', async () => {
  await using archive = await createArchive()
  await archive.add('trades', [trade(8, FIRST), trade(9, FIRST), trade(1, FIRST)], 1)
  // The symbol moves to another partition, where a message comes again.
  await archive.add('trades', [trade(1, REPEATED)])
  const reader = await archive.openReader()
  const read = () =>
    reader.read(async (snapshot) =>
      reader.duckDb.rows<object>(
        `SELECT trade_id::INTEGER AS id, price::VARCHAR AS price FROM (${await snapshot.relation('raw_trades')}) ORDER BY ALL`,
      ),
    )
  const expected = [1, 8, 9].map((id) => ({ id, price: FIRST }))
  assert.deepEqual(await read(), expected)
  await archive.publish()
  assert.deepEqual(await read(), expected)
})

test('symbols of any letters are found in the files that have them', async () => {
  await using archive = await createArchive()
  // By bytes the second is before the third; JavaScript compares parts of characters.
  const symbols = ['AUSDT', '\uff21USDT', '\u{20000}USDT']
  const trade = (symbol: string, id: number) =>
    record(tradeValue({ s: symbol, t: id, T: MIDNIGHT_MS + id, E: MIDNIGHT_MS + id }))
  await archive.add(
    'trades',
    symbols.map((symbol) => trade(symbol, 1)),
  )
  await archive.publish()
  const [, second = ''] = symbols
  await archive.add('trades', [trade(second, 1), trade(second, 2)])
  await archive.publish()
  const list = await newestDayList(archive.store, 'raw_trades', '2024-08-09')
  assert.deepEqual(
    list?.files.map(({ rows }) => rows),
    [4],
  )
  const reader = await archive.openReader()
  const rows = await reader.read(async (snapshot) =>
    reader.duckDb.rows(await snapshot.relation('raw_trades', { ...ALL_ROWS, symbols: [second] })),
  )
  assert.equal(rows.length, 2)
})

test('rows that are committed while a day is found to be over are in its first list', async () => {
  await using archive = await createArchive()
  await archive.add('trades', [trade(1, FIRST)])
  const ports = duckDbCompaction(archive.store, archive.duckDb, systemClock())
  const isOver = async () => {
    await archive.add('trades', [trade(2, FIRST)])
    return true
  }
  const published = await compact(ports, isOver)
  assert.deepEqual(
    published.map(({ number, rows }) => [number, rows]),
    [[1, 2]],
  )
})

test('a segment with another number of rows of a day than its record says is not published', async () => {
  await using archive = await createArchive()
  await plant(archive, 3, '1', 4)
  await assert.rejects(archive.publish(), ({ errors: [error] }: AggregateError) => {
    assert.match(String(error), /_segments.* has 3 rows of 2024-08-09, and its record says 4/)
    return true
  })
})

test('an altered segment is not published, and its name is in the error', async () => {
  await using archive = await createArchive()
  await archive.add('trades', [trade(1, FIRST)])
  const [key = ''] = await archive.store.list('_segments')
  // The engine would read it all the same.
  const other = await createArchive()
  await other.add('trades', [trade(1, REPEATED)])
  const [otherKey = ''] = await other.store.list('_segments')
  copyFileSync(join(other.folder, otherKey), join(archive.folder, key))
  await other[Symbol.asyncDispose]()
  await assert.rejects(archive.publish(), ({ errors: [error] }: AggregateError) => {
    assert.match(String(error), new RegExp(`damaged: ${key} was altered`))
    return true
  })
  assert.deepEqual(await archive.store.list('raw_trades'), [])
})

test('many rows are published in order and once each, the first of them, by two threads with little memory', async () => {
  await using archive = await createArchive()
  const ids = Array.from({ length: ROWS / SEGMENTS }, (_, i) => i)
  for (let segment = 0; segment < SEGMENTS; segment++) {
    const first = segment * ids.length
    const again = segment === 0 ? [] : ids.filter((id) => id % REPEAT === 0)
    await archive.add('trades', [
      ...again.map((id) => trade(first - ids.length + id, REPEATED)),
      ...ids.map((id) => trade(first + id, FIRST)),
      ...ids.slice(0, 1).map((id) => trade(first + id, REPEATED)),
    ])
  }
  const engine = await openDuckDb({
    memoryBytes: 48 << 20,
    tempFolder: join(archive.folder, 'little'),
    threads: 2,
  })
  try {
    const ports = duckDbCompaction(archive.store, await engine.connect(), systemClock())
    const [published] = await compact(ports, () => true)
    const repeats = SEGMENTS + (SEGMENTS - 1) * Math.ceil(ids.length / REPEAT)
    assert.deepEqual(
      { ...published, conflicts: published?.conflicts?.rows },
      {
        ...{ table: 'raw_trades', date: DATE, number: 1, rows: ROWS, duplicates: repeats },
        conflicts: repeats,
      },
    )
    const { files } = await listOf(archive)
    const paths = files.map(({ key }) => quoted(join(archive.folder, key))).join()
    const [found] = await archive.duckDb.rows<object>(
      `SELECT count(*)::INTEGER AS rows, count(DISTINCT trade_id)::INTEGER AS ids, max(price)::VARCHAR AS price,
         (count(*) FILTER (WHERE isAfter = false))::INTEGER AS disordered
       FROM (SELECT *, (symbol, trade_time, trade_id) > lag((symbol, trade_time, trade_id)) OVER () AS isAfter
             FROM read_parquet([${paths}]))`,
    )
    assert.deepEqual(found, { rows: ROWS, ids: ROWS, price: FIRST, disordered: 0 })
  } finally {
    engine.close()
  }
})

/** Publishes the days of a folder, and is killed when all files of the first one are there. */
const KILLED = `
import { compact } from '${resolve('src/archive/compaction.ts')}'
import { duckDbCompaction } from '${resolve('src/archive/day-merge.ts')}'
import { openDuckDb } from '${resolve('src/foundation/archive/duckdb.ts')}'
import { openFolderStore } from '${resolve('src/foundation/archive/folder-store.ts')}'
import { systemClock } from '${resolve('src/foundation/runtime/clock.ts')}'
const store = openFolderStore(process.argv[1])
const engine = await openDuckDb({ memoryBytes: 256 << 20, tempFolder: store.stagingFolder, threads: 1 })
const create = (key, bytes) => {
  if (key.startsWith('_days/')) process.kill(process.pid, 'SIGKILL')
  return store.create(key, bytes)
}
const ports = duckDbCompaction({ ...store, create }, await engine.connect(), systemClock())
await compact(ports, () => true)`

test('a compaction that is killed before its list leaves files that the next ones replace and remove', async () => {
  await using archive = await createArchive()
  const { store, folder } = archive
  for (const number of [1, 2]) {
    await archive.add('trades', [trade(number, FIRST)])
    const before = await store.list('raw_trades')
    const { signal, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', KILLED, folder], {
      encoding: 'utf8',
    })
    assert.equal(signal, 'SIGKILL', stderr)
    assert.equal((await store.list('raw_trades')).length, before.length + 1)
    assert.equal((await store.list('_days')).length, number - 1)
    assert.deepEqual(
      (await archive.publish()).map((one) => [one.number, one.rows]),
      [[number, 1]],
    )
    const { files } = await listOf(archive)
    const keys = files.map(({ key }) => key).sort()
    assert.deepEqual(await store.list('raw_trades'), keys, 'a glob sees no row twice')
    await sweep(store, await markForSweep(store), systemClock())
    assert.deepEqual(await store.list('raw_trades'), keys)
  }
})

test('deleting the folder of the engine ends no process, and its next query can use it', async (context) => {
  context.mock.timers.enable({ apis: ['setInterval'] })
  const tempFolder = mkdtempSync(join(tmpdir(), 'tapeline-engine-'))
  const engine = await openDuckDb({ memoryBytes: 64 << 20, tempFolder, threads: 1 })
  try {
    const duckDb = await engine.connect()
    const [own = ''] = readdirSync(tempFolder)
    rmSync(join(tempFolder, own), { recursive: true })
    // It is kept from being swept.
    context.mock.timers.tick(24 * 3_600_000)
    await duckDb.run('CREATE TABLE large AS SELECT hash(i)::VARCHAR AS text FROM range(3000000) AS r(i)')
    assert.deepEqual(readdirSync(tempFolder), [own])
  } finally {
    engine.close()
    rmSync(tempFolder, { recursive: true })
  }
})
