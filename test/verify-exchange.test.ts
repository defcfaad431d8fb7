import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { z } from 'zod'
import { refusalOf } from '../src/foundation/binance/refusal.ts'
import { type FetchTrades, tradeRest } from '../src/foundation/binance/trade-rest.ts'
import { WeightBudget } from '../src/foundation/binance/weight-budget.ts'
import type { Exchange } from '../src/sandbox/simulator/exchange-server.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import {
  compareWithExchange,
  type ExchangeSamples,
  withComparison,
} from '../src/tools/verify/exchange-samples.ts'
import { REPORT, type Report } from '../src/tools/verify/report-types.ts'
import { EVERYTHING } from '../src/tools/verify/scope.ts'
import { verify } from '../src/tools/verify/verify.ts'
import { AUDIT_OPTIONS, gapSql } from './support/audited-market.ts'
import { databaseOfSuite } from './support/database.ts'
import { startTapeline } from './support/processes.ts'
import { recordingSql } from './support/recordings.ts'
import { until } from './support/wait-for.ts'

const server = databaseOfSuite('migrated')
let exchange: Exchange
before(async () => {
  exchange = await startSimulatedExchange({ messagesPerSecond: 300 })
})
after(() => exchange.close())

/** The exchange's last rows, as the consumer stores them. */
async function storeLatest(): Promise<number> {
  const get = async (path: string) => {
    const response = await fetch(`${exchange.restUrl}/api/v3/${path}?symbol=BTCUSDT&limit=40`)
    return z.array(z.looseObject({})).parse(await response.json())
  }
  const trades = await until('40 trades', async () => {
    const rows = await get('historicalTrades')
    return rows.length === 40 && rows
  })
  await server.database.query(
    `INSERT INTO trades (trade_time, symbol, event_type, trade_id, price, quantity, is_buyer_maker, ingestion_timestamp)
     SELECT to_timestamp(time / 1000.0), 'BTCUSDT', 'trade', id, price, qty, "isBuyerMaker", now()
     FROM jsonb_to_recordset($1::jsonb) AS row (id bigint, price numeric, qty numeric, time bigint, "isBuyerMaker" boolean)`,
    [JSON.stringify(trades)],
  )
  await server.database.query(
    `INSERT INTO trades (trade_time, symbol, event_type, trade_id, price, quantity, first_trade_id, last_trade_id, is_buyer_maker, ingestion_timestamp)
     SELECT to_timestamp("T" / 1000.0), 'BTCUSDT', 'aggTrade', a, p, q, f, l, m, now()
     FROM jsonb_to_recordset($1::jsonb) AS row (a bigint, p numeric, q numeric, f bigint, l bigint, "T" bigint, m boolean)`,
    [JSON.stringify(await get('aggTrades'))],
  )
  await server.database.query(
    "INSERT INTO meta (key, value) VALUES ('source', $1), ('time_unit', 'millisecond')",
    [exchange.source],
  )
  return Number(trades[0]?.['id'])
}

const exchangeFindings = ({ findings }: Report) => findings.filter(({ check }) => check === 'exchange')

async function compare(options: readonly string[] = ['--symbol', 'BTCUSDT']) {
  const { url: DATABASE_URL } = server
  // The default is the Kafka of an `up` that runs on this machine, whose messages are never stored here.
  const env = { DATABASE_URL, BINANCE_REST_URL: exchange.restUrl, KAFKA_BROKERS: '127.0.0.1:1' }
  await using command = startTapeline(['verify', '--exchange', '--json', ...options], { env })
  await command.exit()
  return command.output()
}

/** With the weight of a whole minute. */
function using(fetch: FetchTrades): ExchangeSamples {
  const signal = AbortSignal.timeout(60_000)
  return { fetch, budget: new WeightBudget(6000), random: Math.random, signal }
}

test('compares samples of each day with the exchange, and names a differing row', async () => {
  const firstId = await storeLatest()
  const equal = REPORT.parse(JSON.parse(await compare()))
  assert.ok((equal.compared ?? 0) >= 6, String(equal.compared))
  assert.deepEqual(exchangeFindings(equal), [])
  await server.database.query(
    "UPDATE trades SET price = price + 0.01, trade_time = trade_time + interval '1 millisecond' WHERE event_type = 'trade' AND trade_id = $1",
    [firstId],
  )
  const altered = REPORT.parse(JSON.parse(await compare()))
  const [found, ...others] = exchangeFindings(altered)
  assert.deepEqual(others, [])
  assert.deepEqual(
    [altered.verdict, found?.kind, found?.eventType, found?.examples.map(({ from }) => from)],
    ['not clean', 'differs', 'trade', [firstId]],
  )
  assert.match(
    found?.examples[0]?.detail ?? '',
    /^price \d+\.?\d*, at the exchange \d+\.?\d*; time \d{16}, at the exchange \d{16}$/,
  )
})

test('sends no more requests once REST refuses all, and lists the remaining rows', async () => {
  const report = await verify(server.database, AUDIT_OPTIONS)
  for (const refusal of [refusalOf(403, null, '', 0), refusalOf(503, '86400', '', 0)]) {
    let asked = 0
    const access = using(async () => {
      asked++
      return { kind: 'refused', refusal }
    })
    const comparison = await compareWithExchange(server.database, EVERYTHING, report, access)
    assert.deepEqual([asked, comparison.compared], [1, 0])
    assert.deepEqual(
      comparison.notChecked.map(({ examples }) => [...new Set(examples.map(({ detail }) => detail))]),
      [[refusal.reason], [refusal.reason]],
    )
    const { verdict } = withComparison({ ...report, verdict: 'clean' }, comparison)
    assert.equal(verdict, 'not clean', 'nothing was compared')
  }
})

test('a type of which no row can be compared is a finding', async () => {
  const report = await verify(server.database, AUDIT_OPTIONS)
  const rest = tradeRest(exchange.restUrl, 'millisecond', Date.now)
  const refusal = refusalOf(401, null, '{"code":-2014,"msg":"API-key format invalid."}', 0)
  const access = using(async (request, signal) =>
    request.type === 'trade' ? { kind: 'refused', refusal } : rest(request, signal),
  )
  const { findings, compared } = await compareWithExchange(server.database, EVERYTHING, report, access)
  assert.deepEqual(
    [compared > 0, ...findings.map(({ kind, eventType }) => [kind, eventType])],
    [true, ['not compared', 'trade']],
  )
})

test('finds a symbol that was announced and never delivered', async () => {
  const at = new Date(Date.now() - 30 * 60_000).toISOString()
  const symbols = ['BTCUSDT', 'ETHUSDT', 'NOUSDT']
  await server.database.query(recordingSql(at, { symbols, time_unit: 'millisecond' }))
  const report = REPORT.parse(JSON.parse(await compare([])))
  assert.equal(report.verdict, 'not clean')
  assert.deepEqual(
    report.findings.flatMap(({ kind, symbol, eventType, examples }) =>
      kind === 'not stored'
        ? [[symbol, eventType, /nothing is stored$/.test(examples[0]?.detail ?? '')]]
        : [],
    ),
    [
      ['ETHUSDT', 'trade', true],
      ['ETHUSDT', 'aggTrade', true],
    ],
  )
  const { examples } =
    report.notChecked.find(({ what }) => /the exchange did not answer/.test(what)) ?? assert.fail('none')
  assert.deepEqual(
    examples.map(({ detail }) => detail.replace(/(trade|aggTrade): .*-1121.*/, '$1')),
    ['NOUSDT trade', 'NOUSDT aggTrade'],
  )
})

test('finds trades after the last stored one, unless the ledger names them or Kafka still has them', async () => {
  const report = await verify(server.database, AUDIT_OPTIONS)
  // Everything that the exchange has by now is old enough.
  const later = { ...report, takenAt: new Date(Date.now() + 20 * 60_000).toISOString() }
  const scope = { ...EVERYTHING, symbols: ['BTCUSDT'] }
  const last = report.sequences.find(({ eventType }) => eventType === 'trade')?.lastId ?? assert.fail()
  let asked = 0
  const access = using(async (request, signal) => {
    asked++
    return tradeRest(exchange.restUrl, 'millisecond', Date.now)(request, signal)
  })
  const found = async (one: typeof later) =>
    (await compareWithExchange(server.database, scope, one, access)).findings.filter(
      ({ kind, eventType }) => kind === 'not stored' && eventType === 'trade',
    )
  assert.deepEqual(await found(report), [], 'young ones may be on their way')
  const [finding] = await found(later)
  assert.ok((finding?.examples[0]?.from ?? 0) > last)
  assert.match(finding?.examples[0]?.detail ?? '', new RegExp(`; the last stored id is ${last}$`))
  const partition = { topic: 't', partition: 0, stored: 5, end: 9, pending: 4 }
  const pending = { ...later, watermark: { notReached: null, partitions: [partition], pending: 4 } }
  asked = 0
  const waiting = found(pending)
  await until('the question', async () => asked > 0)
  await server.database.query(gapSql('open', last + 1, last + 1_000_000))
  await server.database.query(
    "INSERT INTO consumer_offsets (topic, topic_id, partition, next_offset) VALUES ('t', gen_random_uuid(), 0, 9)",
  )
  assert.deepEqual(await waiting, [])
})

test('does not compare with another exchange than that of the rows', async () => {
  await server.database.query("UPDATE meta SET value = 'binance' WHERE key = 'source'")
  assert.match(await compare(), /The tables of this database hold data of "binance", not of "simulated/)
})
