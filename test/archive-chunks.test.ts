import assert from 'node:assert/strict'
import { tmpdir } from 'node:os'
import { after, before, beforeEach, describe, test } from 'node:test'
import {
  countChunk,
  dayRows,
  daysOf,
  dropArchivedChunk,
  droppedRows,
  oldChunks,
} from '../src/foundation/archive/archived-chunks.ts'
import { type DuckDb, type DuckDbEngine, openDuckDb } from '../src/foundation/archive/duckdb.ts'
import { rowHash } from '../src/foundation/archive/row-hash.ts'
import { ARCHIVE_TABLES, type ArchiveTable, COLUMN_KINDS } from '../src/foundation/archive/tables.ts'
import { packColumns } from '../src/foundation/order-book/level-columns.ts'
import type { Database } from '../src/foundation/store/database.ts'
import { levelsOf } from './support/book-rows.ts'
import { databaseKinds, type OpenDatabase, openTestDatabase } from './support/database.ts'

const DAY = '2024-02-29'
/** Values at the limits of their columns, and those that texts could show differently. */
const TRADES = [
  ['00:00:00', null, 'BTCUSDT', 0, 1, '0.00000001', '999999999999.99999999', true, 'stream'],
  ['00:00:00.1', '00:00:00.123456', '币安人生USDT', 1023, 9007199254740991, '1', '0.5', false, 'backfill'],
  ['23:59:59.999999', '23:59:59.999999', 'BTCUSDT', 1, 0, '61837.63000000', '0', true, 'archive'],
]
const QUOTES = [
  ['00:00:00.000001', 'ETHUSDT', 9223372036854775807n, '0', '100000000000', '0.1', '3'],
  ['12:00:00', 'ETHUSDT', 5, '2500.00000000', '1', '2500.01', '2'],
]

const at = (time: unknown) => (time === null ? null : `${DAY}T${time}Z`)

for (const { name, ...options } of databaseKinds()) {
  describe(`on the ${name} TimescaleDB`, options, () => {
    let server: OpenDatabase
    let database: Database
    let engine: DuckDbEngine
    let duckDb: DuckDb
    before(async () => {
      server = await openTestDatabase('migrated', name)
      database = server.database
      engine = await openDuckDb({ memoryBytes: 256 << 20, tempFolder: tmpdir(), threads: 1 })
      duckDb = await engine.connect()
    })
    after(async () => {
      engine.close()
      await server[Symbol.asyncDispose]()
    })
    beforeEach(async () => {
      await database.query('TRUNCATE trades, book_ticker, depth_updates, depth_snapshots, meta, dropped_days')
    })

    async function storeTrades(): Promise<void> {
      for (const [time, sent, symbol, epoch, id, price, quantity, flag, source] of TRADES)
        for (const [type, tiles] of [
          ['trade', [null, null]],
          ['aggTrade', [7, 8]],
        ] as const)
          await database.query(
            `INSERT INTO trades (trade_time, event_time, symbol, event_type, epoch, trade_id, price, quantity, first_trade_id,
               last_trade_id, is_buyer_maker, ingestion_timestamp, source)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $1, $12)`,
            [at(time), at(sent), symbol, type, epoch, id, price, quantity, ...tiles, flag, source],
          )
    }

    async function store(): Promise<void> {
      await storeTrades()
      for (const [time, ...values] of QUOTES)
        await database.query('INSERT INTO book_ticker VALUES ($1, $2, $3, $4, $5, $6, $7)', [
          at(time),
          ...values.map(String),
        ])
    }

    /** The same from DuckDB, which gets the values as texts. */
    async function figuresOf(table: ArchiveTable, rows: ReadonlyArray<Record<string, unknown>>) {
      const values = rows.map((row) => {
        const cells = table.columns.map(({ name: column, kind }) => {
          const value = row[column] ?? null
          return `${value === null ? 'NULL' : `'${value}'`}::${COLUMN_KINDS[kind].sql}`
        })
        return `(${cells.join()})`
      })
      const columns = table.columns.map(({ name: column }) => column).join()
      const figures = await duckDb.rows<{ symbol: string; rows: bigint; hash: string }>(
        `SELECT symbol, count(*) AS rows, sum(${rowHash('duckDb', table)})::VARCHAR AS hash
         FROM (VALUES ${values.join()}) AS given (${columns}) GROUP BY symbol ORDER BY symbol`,
      )
      return figures.map(({ symbol, rows: count, hash }) => ({
        ...{ table: table.name, date: DAY, symbol },
        ...{ rows: Number(count), hash: BigInt(hash) },
      }))
    }
    const tradeRows = TRADES.map(([time, sent, symbol, epoch, id, price, quantity, flag, source]) => ({
      ...{ trade_time: at(time), event_time: at(sent), symbol, epoch, trade_id: id, price, quantity },
      ...{ first_trade_id: 7, last_trade_id: 8, is_buyer_maker: flag, ingestion_timestamp: at(time), source },
    }))
    const quoteRows = QUOTES.map(([time, symbol, id, bid, bids, ask, asks]) => ({
      ...{ ingestion_timestamp: at(time), symbol, update_id: id },
      ...{ bid_price: bid, bid_quantity: bids, ask_price: ask, ask_quantity: asks },
    }))
    const bySymbol = (rows: Awaited<ReturnType<typeof dayRows>>) =>
      rows.toSorted((a, b) => (a.table + a.symbol < b.table + b.symbol ? -1 : 1))
    const chunk = { start: new Date(`${DAY}T00:00:00Z`), end: new Date('2024-03-01T00:00:00Z') }

    test('A2 database and engine compute the same hash for every kind of value', async () => {
      await store()
      assert.deepEqual(bySymbol(await dayRows(database, 'trades', DAY)), [
        ...(await figuresOf(ARCHIVE_TABLES.aggTrade, tradeRows)),
        ...(await figuresOf(ARCHIVE_TABLES.trade, tradeRows)),
      ])
      assert.deepEqual(
        await dayRows(database, 'book_ticker', DAY),
        await figuresOf(ARCHIVE_TABLES.bookTicker, quoteRows),
      )
    })

    test('A2 every column of a row changes its hash', async () => {
      const changed: Record<string, string> = {
        time: '2024-02-29 01:01:01.000001+00',
        ...{ id: '77', number: '3', decimal: '0.00000002', flag: 'false', word: 'other' },
      }
      for (const table of Object.values(ARCHIVE_TABLES)) {
        const base = table.name === 'book_ticker' ? quoteRows[0] : tradeRows[0]
        const [before] = await figuresOf(table, [base ?? {}])
        for (const { name: column, kind } of table.columns) {
          const [after] = await figuresOf(table, [{ ...base, [column]: changed[kind] }])
          assert.notEqual(after?.hash, before?.hash, `${table.name}.${column}`)
        }
      }
    })

    test('A2 A3 compares order books by their levels, without derived ones, and drops all rows of the chunk', async () => {
      const packed = `'\\x${Buffer.from(
        packColumns(
          levelsOf([
            ['100.5', '3'],
            ['90071992.5', '0'],
          ]),
        ),
      ).toString('hex')}'`
      await database.query(
        `INSERT INTO depth_updates VALUES ('${at('01:00:00')}', 'BTCUSDT', 2, 5, 9, ${packed}, '', '${at('01:00:01')}'),
           ('${at('02:00:00')}', 'BTCUSDT', 2, 10, 10, '', '', '${at('02:00:01')}')`,
      )
      for (const kind of ['rest', 'derived'])
        await database.query(
          `INSERT INTO depth_snapshots (ingestion_timestamp, symbol, epoch, last_update_id, kind, level_limit, bids, asks, event_time,
             anchor_update_id, anchor_timestamp)
           VALUES ('${at('01:00:02')}', 'BTCUSDT', 2, 9, $1::text, CASE $1::text WHEN 'rest' THEN 100 END, '', ${packed},
             ${kind === 'rest' ? 'NULL, NULL, NULL' : `'${at('01:00:00')}', 9, '${at('01:00:02')}'`})`,
          [kind],
        )
      const levels = (side: string) =>
        [
          ['100.5', '3'],
          ['90071992.5', '0'],
        ].map(([price, quantity], i) => ({ side, level: i + 1, price, quantity }))
      const diff = {
        event_time: at('01:00:00'),
        symbol: 'BTCUSDT',
        epoch: 2,
        ingestion_timestamp: at('01:00:01'),
      }
      const changes = [
        ...levels('bid').map((level) => ({ ...diff, first_update_id: 5, last_update_id: 9, ...level })),
        {
          ...{ ...diff, event_time: at('02:00:00'), ingestion_timestamp: at('02:00:01') },
          ...{ first_update_id: 10, last_update_id: 10 },
        },
      ]
      const snapshots = levels('ask').map((level) => {
        const of = { symbol: 'BTCUSDT', epoch: 2, last_update_id: 9, level_limit: 100 }
        return { ingestion_timestamp: at('01:00:02'), ...of, ...level }
      })
      for (const [table, type, rows] of [
        ['depth_updates', 'depth', changes],
        ['depth_snapshots', 'depthSnapshot', snapshots],
      ] as const) {
        const stored = await dayRows(database, table, DAY)
        assert.deepEqual(stored, await figuresOf(ARCHIVE_TABLES[type], rows))
        assert.equal(await countChunk(database, { table, ...chunk }), 2)
        assert.equal(await dropArchivedChunk(database, { table, ...chunk }, 1, stored), false)
        assert.equal(await dropArchivedChunk(database, { table, ...chunk }, 2, stored), true)
        assert.deepEqual(await droppedRows(database, [ARCHIVE_TABLES[type].name], DAY), stored)
        assert.equal(await countChunk(database, { table, ...chunk }), 0)
      }
    })

    test('A3 drops a chunk only with the number of rows that was compared, and adds up what was dropped', async () => {
      await store()
      const trades = { table: 'trades', ...chunk } as const
      const counted = await countChunk(database, trades)
      const stored = await dayRows(database, 'trades', DAY)
      assert.equal(await dropArchivedChunk(database, trades, counted - 1, stored), false)
      assert.deepEqual(await dayRows(database, 'trades', DAY), stored)
      assert.equal(await dropArchivedChunk(database, trades, counted, stored), true)
      assert.deepEqual(await dayRows(database, 'trades', DAY), [])
      assert.equal((await dayRows(database, 'book_ticker', DAY)).length, 1, 'the other table stays')
      const names = ['raw_trades', 'agg_trades']
      assert.deepEqual(bySymbol(await droppedRows(database, names, DAY)), bySymbol(stored))
      const { rows } = await database.query<{ value: string }>(
        "SELECT value FROM meta WHERE key = 'retention:trades'",
      )
      assert.deepEqual(rows, [{ value: '2024-03-01T00:00:00.000Z' }])
      await storeTrades()
      assert.equal(await dropArchivedChunk(database, trades, counted, stored), true)
      const [first] = bySymbol(await droppedRows(database, names, DAY))
      const [once] = bySymbol(stored)
      assert.deepEqual([first?.rows, first?.hash], [(once?.rows ?? 0) * 2, (once?.hash ?? 0n) * 2n])
    })

    test('A1 finds chunks past the days to keep, which are whole UTC days', async () => {
      await store()
      await database.query(
        "INSERT INTO trades SELECT now(), now(), 'BTCUSDT', 'trade', 0, 1, 1, 1, NULL, NULL, true, now()",
      )
      const found = await oldChunks(database, 5)
      assert.deepEqual(found, [
        { table: 'book_ticker', ...chunk },
        { table: 'trades', ...chunk },
      ])
      assert.deepEqual(found.map(daysOf), [[DAY], [DAY]])
      assert.equal(
        daysOf({ table: 'trades', start: chunk.start, end: new Date('2024-02-29T06:00:00Z') }),
        null,
      )
      assert.deepEqual(await oldChunks(database, 36_500), [])
    })
  })
}
