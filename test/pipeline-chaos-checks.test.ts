import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { checkLedger } from '../chaos/ledger.ts'
import { checkQuotes } from '../chaos/quotes.ts'
import { checkTrades } from '../chaos/truth.ts'
import { consumerImbalance, ingestionImbalance } from '../chaos/watch.ts'
import type { Database } from '../src/foundation/store/database.ts'
import type { Exchange } from '../src/sandbox/simulator/exchange-server.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { type OpenDatabase, openTestDatabase } from './support/database.ts'

const SYMBOL = 'BTCUSDT'
const ROWS = 40

let server: OpenDatabase
let database: Database
let exchange: Exchange

before(async () => {
  server = await openTestDatabase('migrated')
  database = server.database
  // The oldest trades, which are stored here, must not leave the history before they are compared.
  exchange = await startSimulatedExchange({ symbols: [SYMBOL], messagesPerSecond: 200, historyMinutes: 10 })
})

after(async () => {
  await exchange.close()
  await server[Symbol.asyncDispose]()
})

/** Stores the exchange's trades, and returns their ids. */
async function storeTruth(): Promise<number[]> {
  await database.query('TRUNCATE trades, gaps, book_ticker')
  const all = Number.MAX_SAFE_INTEGER - 1
  const trades = exchange.history.events('trade', SYMBOL, 0, all).slice(0, ROWS)
  const aggTrades = exchange.history.events('aggTrade', SYMBOL, 0, all).slice(0, ROWS)
  const store = (type: string, one: (typeof trades)[number]) =>
    insert(
      ...[type, one.id, one.price, one.quantity, one.isBuyerMaker, one.tradeTime],
      ...[one.firstTradeId ?? null, one.lastTradeId ?? null],
    )
  for (const one of trades) await store('trade', one)
  for (const one of aggTrades) await store('aggTrade', one)
  return trades.map(({ id }) => id)
}

async function insert(...values: readonly unknown[]): Promise<void> {
  await database.query(
    `INSERT INTO trades (symbol, event_type, trade_id, price, quantity, is_buyer_maker, trade_time, first_trade_id, last_trade_id, ingestion_timestamp)
     VALUES ('${SYMBOL}', $1, $2, $3, $4, $5, to_timestamp($6::float8 / 1000), $7, $8, now())`,
    values,
  )
}

test('detects a missing, duplicate, changed or invented trade, and accepts a complete store', async () => {
  const ids = await storeTruth()
  const check = async () => (await checkTrades(database, exchange, [])).violations
  assert.deepEqual(await check(), [])
  const [, second, third, fourth] = ids
  await database.query("DELETE FROM trades WHERE event_type = 'trade' AND trade_id = $1", [second])
  const missing = new RegExp(`1 ids \\(${second}\\) are neither stored nor in the ledger`)
  assert.match((await check()).join(), missing)
  await storeTruth()
  await database.query(
    "UPDATE trades SET quantity = quantity + 0.00000001 WHERE event_type = 'trade' AND trade_id = $1",
    [third],
  )
  assert.match((await check()).join(), new RegExp(`1 rows differ from the exchange: ${third} is`))
  await storeTruth()
  await insert('trade', fourth, '1', '1', true, 1_600_000_000_000, null, null)
  assert.match((await check()).join(), new RegExp(`1 ids are stored twice, such as ${fourth}`))
  await storeTruth()
  await database.query(
    "UPDATE trades SET last_trade_id = last_trade_id + 1 WHERE event_type = 'aggTrade' AND trade_id = (SELECT min(agg_trade_id) FROM agg_trades)",
  )
  assert.match((await check()).join(), /aggTrade: 1 rows differ from the exchange/)
})

test('excuses an abandoned id only if REST denied it at that time', async () => {
  const [, id = 0] = await storeTruth()
  await database.query("DELETE FROM trades WHERE event_type = 'trade' AND trade_id = $1", [id])
  const closedMs = 1_700_000_000_000
  await gap('lost', 'trade', 'unrecoverable', { from: id, to: id, closedMs })
  const { violations } = await checkTrades(database, exchange, [])
  assert.match(violations.join(), /as not filled, although REST has them/)
  const times = { fromMs: closedMs - 1000, toMs: closedMs }
  const denial = { symbol: SYMBOL, ids: 'trade' as const, from: id, to: id, ...times }
  const excused = await checkTrades(database, exchange, [denial])
  assert.deepEqual([excused.violations, excused.denied], [[], 1])
  const before = { ...denial, fromMs: 0, toMs: closedMs - 60_000 }
  assert.equal((await checkTrades(database, exchange, [before])).violations.length, 1)
})

async function quote(atMs: number, updateId: number): Promise<void> {
  const sql = `INSERT INTO book_ticker VALUES (to_timestamp($1::float8 / 1000), '${SYMBOL}', $2, 1, 1, 1, 1)`
  await database.query(sql, [atMs, updateId])
}

test('detects an outage that is not in the ledger, and an unexplained silence', async () => {
  await storeTruth()
  const start = 1_700_000_000_000
  for (let ms = 0; ms < 60_000; ms += 100) {
    if (ms > 20_000 && ms < 22_000) continue
    if (ms > 40_000 && ms < 55_000) continue
    await quote(start + ms, ms)
  }
  const outageTimes = { fromMs: start + 20_050, toMs: start + 21_900 }
  const outage = { ...outageTimes, why: 'it was cut', symbol: null, noticedAfterMs: null }
  const check = async (disturbances: Parameters<typeof checkQuotes>[3]) =>
    (await checkQuotes(database, [SYMBOL], [outage], disturbances)).violations
  const disturbance = { symbol: null, fromMs: start + 40_000, toMs: start + 55_000 }
  const other = { ...outage, symbol: 'ETHUSDT' }
  assert.deepEqual((await checkQuotes(database, [SYMBOL], [other], [disturbance])).violations, [])
  const found = await check([disturbance])
  assert.equal(found.length, 1)
  assert.match(String(found[0]), /is not in the ledger, although it was cut/)
  await gap('short', 'bookTicker', 'unrecoverable', { fromMs: start + 20_500, toMs: start + 22_000 })
  assert.equal((await check([disturbance])).length, 1, 'a window that covers a part is not enough')
  await gap('whole', 'bookTicker', 'unrecoverable', { fromMs: start + 20_000, toMs: start + 22_000 })
  assert.deepEqual(await check([disturbance]), [])
  assert.match((await check([])).join(), /1 silences have no cause/)
  await quote(start + 101, 100)
  assert.match((await check([disturbance])).join(), /1 quotes are stored more than once/)
})

test('detects a gap that is still open at the end', async () => {
  await storeTruth()
  await gap('filled', 'trade', 'filled', { from: 1, to: 2, closedMs: Date.now() })
  assert.deepEqual((await checkLedger(database)).violations, [])
  await gap('open', 'trade', 'open', { from: 5, to: 6 })
  const { violations } = await checkLedger(database)
  assert.match(violations.join(), /1 gaps are still open at the end, such as open/)
})

test('detects counters that lose one message', () => {
  const frames = { received: 6, forwarded: 1, duplicate: 1, held: 1, control: 1, ignored: 1, rejected: 1 }
  const sent = { backfilled: 2, acknowledged: 1, discarded: 0, queued: 1, inFlight: 1 }
  const imbalance = (changed: Partial<typeof frames & typeof sent>) =>
    String(ingestionImbalance({ counters: { ...frames, ...sent, ...changed } }))
  assert.equal(imbalance({}), 'null')
  assert.match(imbalance({ received: 7 }), /received 7 frames/)
  assert.match(imbalance({ queued: 0 }), /accounts for 2/)
  const stored = { consumed: 5, inserted: 1, alreadyThere: 1, deadLettered: 1, discarded: 1, pending: 1 }
  assert.equal(consumerImbalance({ counters: stored }), null)
  assert.match(String(consumerImbalance({ counters: { ...stored, pending: 0 } })), /accounts for 4/)
})

async function gap(
  id: string,
  type: string,
  status: string,
  at: { from?: number; to?: number; fromMs?: number; toMs?: number; closedMs?: number },
): Promise<void> {
  const { from = null, to = null } = at
  const time = (ms: number | undefined) => (ms === undefined ? null : new Date(ms))
  await database.query(
    `INSERT INTO gaps (gap_id, revision, symbol, event_type, from_id, to_id, from_time, to_time, cause, status, detected_at, updated_at, closed_at)
     VALUES ($1, 1, '${SYMBOL}', $8, $2, $3, $4, $5, 'test', $6, now(), now(), $7)`,
    [id, from, to, time(at.fromMs), time(at.toMs), status, time(at.closedMs), type],
  )
}
