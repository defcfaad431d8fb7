import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { compact } from '../src/archive/compaction.ts'
import { duckDbCompaction } from '../src/archive/day-merge.ts'
import { markForSweep, sweep } from '../src/archive/sweep.ts'
import { newestDayList } from '../src/foundation/archive/day-list.ts'
import { openDuckDb, quoted } from '../src/foundation/archive/duckdb.ts'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import { createArchive, MIDNIGHT_MS } from './support/archive-parts.ts'
import { record, tradeValue } from './support/records.ts'

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
        ...{ table: 'raw_trades', date: '2024-08-09', number: 1, rows: ROWS, duplicates: repeats },
        conflicts: repeats,
      },
    )
    const list = await newestDayList(archive.store, 'raw_trades', '2024-08-09')
    const paths = list?.files.map(({ key }) => quoted(join(archive.folder, key))).join()
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
    await sweep(store, await markForSweep(store), systemClock())
    const list = await newestDayList(store, 'raw_trades', '2024-08-09')
    assert.deepEqual(await store.list('raw_trades'), list?.files.map(({ key }) => key).sort())
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
