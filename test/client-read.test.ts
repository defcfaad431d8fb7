import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { partitionOf } from '../src/foundation/kafka/partition.ts'
import { type MarketEvent, readEvents } from '../src/tools/client/index.ts'
import { brokers, createTestTopics } from './support/kafka.ts'
import { addPartitions, produce } from './support/messages.ts'
import { aggTradeValue, bookTickerValue, eventValue, tradeValue } from './support/records.ts'

const ROOT = resolve(import.meta.dirname, '..')

/** A program as a user would write it. */
const PROGRAM = `import { type MarketEvent, readEvents } from 'tapeline'

const [brokers = '', trades = '', bookTicker = '', depth = ''] = process.argv.slice(2)
const stop = new AbortController()
let count = 0
for await (const event of readEvents({
  brokers: brokers.split(','),
  topics: { trades, bookTicker, depth },
  types: ['trade', 'aggTrade', 'bookTicker', 'depth', 'depthSnapshot'],
  from: 'earliest',
  signal: stop.signal,
})) {
  console.log(line(event))
  if (++count === 5) stop.abort()
}

function line(event: MarketEvent): string {
  switch (event.type) {
    case 'trade':
    case 'blockTrade':
      return \`\${event.symbol} \${event.tradeId} \${event.price.padStart(16)} \${event.isBuyerMaker ? 'sell' : 'buy'}\`
    case 'aggTrade':
      return \`\${event.symbol} \${event.firstTradeId ?? 0}..\${event.lastTradeId ?? 0}\`
    case 'bookTicker':
      return \`\${event.symbol} \${event.bidPrice} \${event.askPrice}\`
    case 'depth':
      return \`\${event.symbol} \${event.firstUpdateId}..\${event.lastUpdateId} \${event.bids.map(([price]) => price)}\`
    case 'depthSnapshot':
      return \`\${event.symbol} \${event.lastUpdateId} of \${event.limit}, \${event.asks.length} asks\`
  }
}
`

async function take(options: Parameters<typeof readEvents>[0], count: number): Promise<MarketEvent[]> {
  const stop = new AbortController()
  const events: MarketEvent[] = []
  const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(30_000)])
  for await (const event of readEvents({ ...options, signal })) {
    events.push(event)
    if (events.length === count) stop.abort()
  }
  assert.equal(events.length, count)
  return events
}

test('reads typed events in order, filtered by symbol and type, and continues after a position', async () => {
  await using topics = await createTestTopics({ prefix: 'client' })
  const { KAFKA_TRADES_TOPIC: trades, KAFKA_BOOK_TICKER_TOPIC: bookTicker } = topics.env
  const options = { brokers: brokers(), topics: { trades, bookTicker } }
  const values = [1, 2, 3, 4].map((t) => tradeValue({ t }))
  await produce(trades, 'BTCUSDT', [...values, aggTradeValue({ a: 7, f: -1, l: -1 })])
  const late = ['backfill', 'archive'].map((source, i) => ({ s: 'BNBUSDT', t: 9 + i, E: undefined, source }))
  await produce(trades, 'BNBUSDT', late.map(tradeValue))
  await produce(bookTicker, 'BTCUSDT', [bookTickerValue({ u: 5 })])

  const btc = await take({ ...options, from: 'earliest', symbols: ['BTCUSDT'], types: ['trade'] }, 4)
  assert.deepEqual(
    btc.map((event) => event.type === 'trade' && event.tradeId),
    [1, 2, 3, 4],
  )
  const second = btc[1]?.position
  assert.ok(second !== undefined)
  const from = [{ ...second, offset: second.offset + 1 }]
  const [third] = await take({ ...options, types: ['trade'], from }, 1)
  assert.equal(third?.type === 'trade' && third.tradeId, 3)
  const all = await take({ ...options, from: 'earliest' }, 8)
  const of = <Type extends MarketEvent['type']>(type: Type) => all.filter((event) => event.type === type)
  assert.deepEqual([of('trade').length, of('aggTrade').length, of('bookTicker').length], [6, 1, 1])
  const invalid = all.find((event) => event.type === 'aggTrade')
  assert.deepEqual([invalid?.type === 'aggTrade' && invalid.firstTradeId], [null])
  const received = all.filter((event) => event.symbol === 'BNBUSDT')
  assert.deepEqual(
    received.map((event) => event.type === 'trade' && [event.source, event.eventTimeUs]),
    [
      ['backfill', null],
      ['archive', null],
    ],
  )
})

test('reads partitions added during the read, from their beginning', async () => {
  await using topics = await createTestTopics({ prefix: 'client' })
  const { KAFKA_TRADES_TOPIC: trades } = topics.env
  const symbols = Array.from({ length: 100 }, (_, n) => `S${n}USDT`)
  const ofEach = [0, 1, 2, 3, 4, 5].map(
    (partition) => symbols.find((one) => partitionOf(one, 6) === partition) ?? assert.fail(),
  )
  const reading = take({ brokers: brokers(), topics: { trades }, types: ['trade'], from: 'earliest' }, 7)
  await produce(trades, 'BTCUSDT', [tradeValue({ t: 1 })])
  await addPartitions(trades, 6)
  for (const symbol of ofEach) await produce(trades, symbol, [tradeValue({ s: symbol })], { partitions: 6 })
  const events = await reading
  assert.deepEqual(events.map(({ symbol }) => symbol).sort(), ['BTCUSDT', ...ofEach].sort())
})

test('reports unreadable input: an invalid message, a newer schema, an expired position, a missing topic', async () => {
  await using topics = await createTestTopics({ prefix: 'client' })
  const { KAFKA_TRADES_TOPIC: trades } = topics.env
  const from = 'earliest' as const
  const options = { brokers: brokers(), topics: { trades }, types: ['trade'] as const, from }
  await produce(trades, 'BTCUSDT', [Buffer.from('{"e":'), tradeValue({ t: 2 })])
  await assert.rejects(take(options, 1), { code: 'INPUT', message: /offset 0: value is not JSON/ })
  const unreadable: string[] = []
  const [event] = await take({ ...options, onUnreadable: (reason) => unreadable.push(reason) }, 1)
  assert.equal(event?.type === 'trade' && event.tradeId, 2)
  assert.deepEqual(unreadable, ['value is not JSON'])
  const expired = { ...options, from: [{ topic: trades, partition: 2, offset: 99 }] }
  await assert.rejects(take(expired, 1), { code: 'KAFKA', message: /99 is not among them/ })
  await assert.rejects(take({ ...options, topics: { trades: `${trades}.missing` } }, 1), { code: 'KAFKA' })
})

test('the packed package runs with its types in a program outside this repository', async () => {
  await using topics = await createTestTopics({ prefix: 'client' })
  const {
    KAFKA_TRADES_TOPIC: trades,
    KAFKA_BOOK_TICKER_TOPIC: bookTicker,
    KAFKA_DEPTH_TOPIC: depth,
  } = topics.env
  await produce(trades, 'BTCUSDT', [tradeValue({ t: 41 }), aggTradeValue({ f: 1, l: 41 })])
  await produce(bookTicker, 'BTCUSDT', [bookTickerValue()])
  const bids = [
    ['2.0', '1.5'],
    ['1.0', '0'],
  ]
  await produce(depth, 'BTCUSDT', [eventValue('depth', { U: 7, u: 9, b: bids }), eventValue('depthSnapshot')])
  const folder = mkdtempSync(join(tmpdir(), 'client-'))
  const node = (...args: string[]) => execFileSync(process.execPath, args, { cwd: folder, encoding: 'utf8' })
  const modules = join(folder, 'node_modules')
  mkdirSync(modules)
  node(join(ROOT, 'scripts/build.ts'), join(folder, 'dist'))
  mkdirSync(join(modules, 'tapeline'))
  symlinkSync(join(ROOT, 'package.json'), join(modules, 'tapeline/package.json'))
  symlinkSync(join(folder, 'dist'), join(modules, 'tapeline/dist'))
  for (const name of readdirSync(join(ROOT, 'node_modules')))
    if (name !== 'tapeline') symlinkSync(join(ROOT, 'node_modules', name), join(modules, name))
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
  writeFileSync(join(folder, 'program.ts'), PROGRAM)
  const strict = '--strict --noUncheckedIndexedAccess --module nodenext --target esnext --types node --noEmit'
  node(join(ROOT, 'node_modules/typescript/bin/tsc'), ...strict.split(' '), 'program.ts')
  const lines = node('program.ts', brokers().join(), trades, bookTicker, depth).trim().split('\n')
  assert.deepEqual(lines.sort(), [
    'BTCUSDT 1 of 5000, 0 asks',
    'BTCUSDT 1..41',
    'BTCUSDT 41   61837.63000000 sell',
    'BTCUSDT 61837.63000000 61837.64000000',
    'BTCUSDT 7..9 2.0,1.0',
  ])
})
