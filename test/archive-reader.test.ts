import assert from 'node:assert/strict'
import { copyFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { markForSweep, sweep } from '../src/archive/sweep.ts'
import type { ArchiveReader } from '../src/foundation/archive/archive-reader.ts'
import { ALL_ROWS, ArchiveSnapshot, type RowRange } from '../src/foundation/archive/archive-snapshot.ts'
import type { ObjectStore } from '../src/foundation/archive/object-store.ts'
import type { FetchedMessage } from '../src/foundation/kafka/codec/record-batch.ts'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import { storedUntil } from '../src/tools/verify/archive-tables.ts'
import { type ArchiveParts, createArchive, MIDNIGHT_MS } from './support/archive-parts.ts'
import { bookTickerValue, gapRow, record, tradeValue } from './support/records.ts'

const DAY_MS = 86_400_000

/** A trade whose time is so long after midnight. */
function trade(id: number, afterMs: number, fields: Readonly<Record<string, unknown>> = {}): FetchedMessage {
  return record(tradeValue({ t: id, T: MIDNIGHT_MS + afterMs, E: MIDNIGHT_MS + afterMs, ...fields }))
}

function ledger(fields: Parameters<typeof gapRow>[0]): FetchedMessage {
  return record(Buffer.from(JSON.stringify(gapRow(fields))), null, { schema: 'gap/1' })
}

async function rowsOf(reader: ArchiveReader, table: string, columns: string, range: RowRange = ALL_ROWS) {
  return reader.read(async (snapshot) => {
    const sql = `SELECT ${columns} FROM (${await snapshot.relation(table, range)}) ORDER BY ALL`
    return (await reader.duckDb.rows<object>(sql)).map((row) => Object.values(row))
  })
}

test('a reader has each row once: published, late, and of days that are not over', async () => {
  await using all = await createArchive()
  await all.add('trades', [trade(1, 0), trade(2, 5), trade(1, 0, { s: 'ETHUSDT' }), trade(8, DAY_MS)])
  await all.publish((date) => date === '2024-08-09')
  await all.add('trades', [
    trade(2, 5, { p: '1' }),
    trade(3, 6),
    trade(8, DAY_MS, { p: '2' }),
    trade(9, DAY_MS + 1),
  ])
  const reader = await all.openReader()
  const price = '61837.63000000'
  const expected = [
    ['BTCUSDT', 1n, price],
    ['BTCUSDT', 2n, price],
    ['BTCUSDT', 3n, price],
    ['BTCUSDT', 8n, price],
    ['BTCUSDT', 9n, price],
    ['ETHUSDT', 1n, price],
  ]
  const columns = 'symbol, trade_id, price::VARCHAR'
  assert.deepEqual(await rowsOf(reader, 'raw_trades', columns), expected)
  assert.deepEqual(
    await rowsOf(reader, 'raw_trades', columns, {
      symbols: ['BTCUSDT'],
      fromMs: MIDNIGHT_MS + 5,
      toMs: MIDNIGHT_MS + DAY_MS,
    }),
    expected.slice(1, 3),
  )
  assert.deepEqual(
    await rowsOf(reader, 'raw_trades', columns, { symbols: ['NONE'], fromMs: null, toMs: null }),
    [],
  )
  assert.deepEqual(await rowsOf(reader, 'book_ticker', 'symbol, bid_price'), [], 'a table without rows')
  await all.publish()
  assert.deepEqual(await rowsOf(reader, 'raw_trades', columns), expected, 'after all is published')
})

test('a snapshot has the same rows whether compaction publishes before or after its lists are read', async () => {
  await using all = await createArchive()
  await all.add('trades', [trade(1, 0), trade(2, 1)])
  await all.publish()
  await all.add('trades', [trade(2, 1), trade(3, 2)])
  const reader = await all.openReader()
  const count = (sql: string) => reader.duckDb.rows<{ n: bigint }>(`SELECT count(*) AS n FROM (${sql})`)
  await reader.read(async (snapshot) => {
    // Its records are read, its list is not.
    await all.publish()
    assert.deepEqual(await count(await snapshot.relation('raw_trades')), [{ n: 3n }])
  })
  await all.add('trades', [trade(4, 3)])
  await reader.read(async (snapshot) => {
    await snapshot.day('raw_trades', '2024-08-09')
    await all.publish()
    assert.deepEqual(await count(await snapshot.relation('raw_trades')), [{ n: 4n }])
  })
})

test('the ledger has the last revision of each gap, and dead letters their bytes', async () => {
  await using all = await createArchive()
  await all.add('gaps', [ledger({ from_id: 5, to_id: 9 }), ledger({ from_id: 20, to_id: 21 })])
  await all.add('gaps', [
    ledger({ from_id: 5, to_id: 9, status: 'filled' }),
    ledger({ from_id: 20, to_id: 21 }),
  ])
  await all.add('trades', [record(Buffer.from([0xff, 0x00]), Buffer.from('BTCUSDT'))])
  const reader = await all.openReader()
  const [gaps, letters] = await reader.read(async (snapshot) => [
    await reader.duckDb.rows<object>(
      `SELECT gap_id, revision, status, from_id, to_id, from_time, epoch_ms(detected_at) AS at
       FROM (${await snapshot.textRelation('gaps')}) ORDER BY ALL`,
    ),
    await reader.duckDb.rows<object>(
      `SELECT topic, kafka_offset, origin, reason, hex(payload) AS payload, decode(key) AS key FROM (${await snapshot.textRelation('deadLetters')})`,
    ),
  ])
  const { detected_at } = gapRow()
  assert.deepEqual(
    gaps?.map((row) => Object.values(row)),
    [
      ['BTCUSDT/trade/0/20', 1, 'open', 20n, 21n, null, BigInt(detected_at)],
      ['BTCUSDT/trade/0/5', 2, 'filled', 5n, 9n, null, BigInt(detected_at)],
    ],
  )
  assert.deepEqual(
    letters?.map((row) => Object.values(row)),
    [['trades', 0n, 'consumer', 'value is not UTF-8', 'FF00', 'BTCUSDT']],
  )
})

test('a snapshot has the ledger of its records: no file without a record, none of a later one', async () => {
  await using all = await createArchive()
  await all.add('gaps', [ledger({ from_id: 5, to_id: 9 })])
  await all.publish()
  await all.add('gaps', [ledger({ from_id: 20, to_id: 21 })])
  const [folded = '', named = ''] = await all.store.list('_segments/gaps')
  // Two owners were killed before their records: other segments took the place of one of them.
  await all.add('gaps', [ledger({ from_id: 5, to_id: 9, status: 'filled' })])
  const [, , unnamed = ''] = await all.store.list('_segments/gaps')
  const [, , record = '', ...others] = (await all.store.list('_commits/gaps')).slice(1)
  assert.deepEqual(others, [])
  await all.store.remove(record)
  copyFileSync(join(all.folder, unnamed), join(all.folder, folded.replace(/-\w{8}-/, '-00000000-')))
  assert.notEqual(named, unnamed)
  const reader = await all.openReader()
  const rows = await reader.read(async (snapshot) => {
    await all.add('gaps', [ledger({ from_id: 20, to_id: 21, status: 'filled' })])
    const sql = `SELECT from_id, status FROM (${await snapshot.textRelation('gaps')}) ORDER BY ALL`
    return reader.duckDb.rows<object>(sql)
  })
  assert.deepEqual(
    rows.map((row) => Object.values(row)),
    [
      [5n, 'open'],
      [20n, 'open'],
    ],
  )
})

test('the rows of a snapshot reach the ends of its chains, although records are added meanwhile', async () => {
  await using all = await createArchive()
  await all.add('trades', [trade(1, 0)])
  const list: ObjectStore['list'] = async (folder, after) => {
    const keys = await all.store.list(folder, after)
    if (folder.startsWith('_commits/')) await all.add('trades', [trade(keys.length, keys.length)])
    return keys
  }
  await using snapshot = await ArchiveSnapshot.take({ ...all.store, list })
  const rows = snapshot.chains[0]?.records.reduce((sum, { files }) => sum + (files[0]?.rows ?? 0), 0) ?? 0
  const { nextOffset } = snapshot.chains[0]?.head ?? assert.fail('no head')
  assert.ok(nextOffset > 0 && nextOffset <= rows, `${nextOffset} and ${rows}`)
})

test('everything of the days before the newest rows of a partition is stored', async () => {
  await using all = await createArchive()
  await all.add('trades', [trade(1, 0), trade(2, DAY_MS)])
  await all.add('trades', [trade(3, 1)])
  await using snapshot = await ArchiveSnapshot.take(all.store)
  const until = storedUntil(snapshot)
  assert.equal(until({ topic: 'trades', partition: 0 }), MIDNIGHT_MS + DAY_MS)
  assert.equal(until({ topic: 'trades', partition: 1 }), 0)
})

test('a read begins again when the files of its moment are removed', async () => {
  await using all = await createArchive()
  await all.add('trades', [trade(1, 0)])
  const reader = await all.openReader()
  let attempts = 0
  const rows = await reader.read(async (snapshot) => {
    const sql = await snapshot.relation('raw_trades')
    if (attempts++ === 0) await replaceAll(all)
    return reader.duckDb.rows<object>(`SELECT trade_id FROM (${sql})`)
  })
  assert.equal(attempts, 2)
  assert.deepEqual(rows, [{ trade_id: 1n }])
})

/** Publishes, and removes what was published: as after the grace period. */
async function replaceAll({ store, publish }: ArchiveParts): Promise<void> {
  await publish()
  await sweep(store, await markForSweep(store), systemClock())
}

test('a lost file is named', async () => {
  await using all = await createArchive()
  await all.add('trades', [trade(1, 0)])
  await all.publish()
  const [key = ''] = await all.store.list('raw_trades')
  rmSync(join(all.folder, key))
  const reader = await all.openReader()
  await assert.rejects(rowsOf(reader, 'raw_trades', '*'), { code: 'ARCHIVE', message: new RegExp(key) })
})

test('a folder without an archive is refused, and not created', async () => {
  await using all = await createArchive()
  await all.store.remove('_meta.json')
  await all.add('trades', [trade(1, 0)])
  await assert.rejects(all.openReader(), { code: 'ARCHIVE', message: /is not an archive/ })
  rmSync(all.folder, { recursive: true })
  await assert.rejects(all.openReader(), { code: 'ARCHIVE', message: /no such folder/ })
  await assert.rejects(all.store.isEmpty(), { code: 'ENOENT' })
  writeFileSync(all.folder, '')
  await assert.rejects(all.openReader(), { code: 'ARCHIVE', message: /not a folder/ })
})

test('a reader loops over one day during 20 re-compactions: count and sum never change', async () => {
  await using all = await createArchive()
  const trades = Array.from({ length: 4000 }, (_, i) =>
    trade(i, i * 20_000, { s: ['BTCUSDT', 'ETHUSDT'][i % 2], q: `0.0000${1000 + i}` }),
  )
  for (let from = 0; from < trades.length; from += 500)
    await all.add('trades', trades.slice(from, from + 500))
  const reader = await all.openReader()
  const day = { symbols: null, fromMs: MIDNIGHT_MS, toMs: MIDNIGHT_MS + DAY_MS }
  const figures = () =>
    rowsOf(reader, 'raw_trades', 'count(*), sum(quantity)::VARCHAR, count(DISTINCT (symbol, trade_id))', day)
  const expected = await figures()
  assert.equal(expected[0]?.[0], 4000n)
  let isOver = false
  let reads = 0
  const loop = (async () => {
    while (!isOver) {
      assert.deepEqual(await figures(), expected, `read ${reads}`)
      reads++
    }
  })()
  let publications = 0
  let marks = await markForSweep(all.store)
  for (let round = 0; round < 20; round++) {
    // Redelivered rows: the day changes, and its rows stay.
    await all.add('trades', trades.slice(round * 150, round * 150 + 300))
    publications += (await all.publish()).length
    await sweep(all.store, marks, systemClock())
    marks = await markForSweep(all.store)
    const readsBefore = reads
    while (reads === readsBefore) await Promise.race([loop, new Promise((resolve) => setTimeout(resolve, 5))])
  }
  isOver = true
  await loop
  assert.equal(publications, 20)
  assert.ok(reads >= 20, `${reads} reads`)
})

test('quotes of one receipt and update id are there once', async () => {
  await using all = await createArchive()
  const quote = record(bookTickerValue({ u: 4 }))
  await all.add('bookTicker', [quote, quote, record(bookTickerValue({ u: 5 }))])
  const reader = await all.openReader()
  assert.deepEqual(await rowsOf(reader, 'book_ticker', 'update_id, ask_price::VARCHAR'), [
    [4n, '61837.64000000'],
    [5n, '61837.64000000'],
  ])
})
