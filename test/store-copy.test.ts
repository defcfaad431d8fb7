import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { Batch } from '../src/consumer/batch.ts'
import { databaseStore } from '../src/consumer/database-store.ts'
import { type BookTickerColumns, insertBookTickers } from '../src/store/book-ticker.ts'
import type { Database } from '../src/store/database.ts'
import { migrate } from '../src/store/migrate.ts'
import { openPostgres } from '../src/store/postgres.ts'
import { insertTrades, type TradeColumns } from '../src/store/trades.ts'
import { createTestDatabase, databaseKinds, type TestDatabase } from './support/database.ts'

const TOPIC_ID = '0f0e0d0c-0b0a-0908-0706-050403020100'
const START = { topic: 't', topicId: TOPIC_ID, partition: 0, nextOffset: 0 }
const ROWS = 40

/** Every kind of value: no event time, no trades, symbols that look like something else, the ends of what a column holds. */
function addRows({ trades, bookTicker }: { trades: TradeColumns; bookTicker: BookTickerColumns }): void {
  const symbols = ['BTCUSDT', 'NULL', 'N', '币安人生USDT', '1000SATS']
  const decimals = ['0', '1', '0.00000001', '999999999999.99999999', '61837.63000000']
  for (let i = 0; i < ROWS; i++) {
    const symbol = symbols[i % symbols.length] ?? ''
    const decimal = decimals[i % decimals.length] ?? ''
    const isAggTrade = i % 3 === 0
    trades.tradeTimeMs.push(1_723_161_599_000 + i * 37)
    trades.eventTimeMs.push(i % 4 === 0 ? null : 1_723_161_600_000 + i)
    trades.symbol.push(symbol)
    trades.eventType.push(isAggTrade ? 'aggTrade' : 'trade')
    trades.tradeId.push(i === 7 ? Number.MAX_SAFE_INTEGER : i)
    trades.price.push(decimal)
    trades.quantity.push(decimal)
    trades.firstTradeId.push(isAggTrade ? i : null)
    trades.lastTradeId.push(isAggTrade ? i + 5 : null)
    trades.isBuyerMaker.push(i % 2 === 0 ? 't' : 'f')
    trades.ingestionUs.push(1_723_161_599_999_998 + i)
    trades.source.push(i % 5 === 0 ? 'backfill' : 'stream')
    trades.epoch.push(i % 2)
    bookTicker.ingestionUs.push(1_723_161_599_999_998 + i)
    bookTicker.symbol.push(symbol)
    bookTicker.updateId.push(i)
    for (const column of ['bidPrice', 'bidQuantity', 'askPrice', 'askQuantity'] as const)
      bookTicker[column].push(decimal)
  }
}

function batch(): Batch {
  const made = new Batch(0)
  addRows(made)
  made.advance(START, 0, 2 * ROWS)
  return made
}

for (const { name, ...options } of databaseKinds()) {
  describe(`on the ${name} TimescaleDB`, options, () => {
    let server: TestDatabase
    let database: Database
    before(async () => {
      server = await createTestDatabase(name)
      database = openPostgres({ url: server.url, poolMin: 0, poolMax: 2, applicationName: 'test' })
      await migrate(database)
    })
    after(async () => {
      await database.close()
      await server.drop()
    })

    const stored = async () => {
      const trades = await database.query('SELECT trades::text AS row FROM trades ORDER BY 1')
      const quotes = await database.query('SELECT book_ticker::text AS row FROM book_ticker ORDER BY 1')
      return [...trades.rows, ...quotes.rows]
    }
    const empty = () => database.query('TRUNCATE trades, book_ticker, consumer_offsets')

    test('W4 a batch that is new is stored as INSERT would store it, and counted by symbol', async () => {
      const inserted = batch()
      await insertTrades(database, inserted.trades)
      await insertBookTickers(database, inserted.bookTicker)
      const expected = await stored()
      assert.equal(expected.length, 2 * ROWS)
      await empty()

      const store = databaseStore(database)
      await store.establish(() => ({ positions: [START], toWrite: [START], losses: [], notices: [] }))
      const written = await store.write(batch())
      assert.deepEqual(await stored(), expected)
      assert.equal(written.inserted, 2 * ROWS)
      const ofNull = written.rows
        .filter(({ symbol }) => symbol === 'NULL')
        .map(({ type, rows }) => [type, rows])
      assert.deepEqual(ofNull.sort(), [
        ['aggTrade', 3],
        ['bookTicker', 8],
        ['trade', 5],
      ])
    })

    test('W4 a batch of which a part is there already adds the rest, once', async () => {
      await empty()
      const store = databaseStore(database)
      await store.establish(() => ({ positions: [START], toWrite: [START], losses: [], notices: [] }))
      await insertTrades(database, batch().trades, 0, 15)
      assert.equal((await store.write(batch())).inserted, 2 * ROWS - 15)
      assert.equal((await store.write(batch())).inserted, 0)
      assert.equal((await stored()).length, 2 * ROWS)
    })
  })
}
