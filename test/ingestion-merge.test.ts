import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { StreamEvent } from '../src/ingestion/continuity/continuity.ts'
import { StreamMerge } from '../src/ingestion/continuity/stream-merge.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const STREAM = 'btcusdt@trade'
const QUOTES = 'btcusdt@bookTicker'

/** A merge whose streams count as quiet after `patienceMs`, with the streams told to be interrupted by a stall. */
function scene(patienceMs = Number.POSITIVE_INFINITY) {
  const clock = new VirtualClock()
  const passed: number[] = []
  const told: string[] = []
  const merge = new StreamMerge<StreamEvent>(
    clock,
    { deliver: ({ id }) => passed.push(id) < 0 },
    { patienceMs: () => patienceMs },
    { interrupted: (streams, cause) => cause === 'stall' && told.push(...streams) },
  )
  const offer = (connection: number, id: number, stream = STREAM) => {
    const type = stream === STREAM ? 'trade' : 'bookTicker'
    const ids = { firstId: id, id, timeMs: id }
    const event = { stream, symbol: 'BTCUSDT', type, ...ids, connection, receiptMs: 0 } as const
    merge.offer(event, clock.monotonicMs())
  }
  return { clock, passed, told, merge, offer }
}

test("M1 holds the new connection's events until the old one has reached its first event", () => {
  const { passed, merge, offer } = scene()
  merge.opened(1, [STREAM])
  offer(1, 10)
  assert.deepEqual(merge.opened(2, [STREAM]), [], 'no interruption: another connection delivers')
  offer(2, 13)
  offer(2, 14)
  assert.deepEqual([passed, merge.held], [[10], 2])
  offer(1, 11)
  offer(1, 12)
  assert.deepEqual([passed, merge.held], [[10, 11, 12, 13, 14], 0])
})

test('M2 releases held events when the old connection has closed', () => {
  const { passed, merge, offer } = scene()
  merge.opened(1, [STREAM])
  offer(1, 10)
  merge.opened(2, [STREAM])
  offer(2, 13)
  assert.deepEqual(merge.closed(1, [STREAM], 'reconnect'), [])
  assert.deepEqual(passed, [10, 13])
  assert.deepEqual(merge.closed(2, [STREAM], 'reconnect'), [STREAM], 'now no connection delivers')
})

test('M2 the only remaining connection does not overtake events that a closed one left waiting', () => {
  const { passed, merge, offer } = scene()
  merge.opened(1, [STREAM])
  offer(1, 10)
  merge.opened(2, [STREAM])
  merge.closed(1, [STREAM], 'reconnect')
  merge.opened(3, [STREAM])
  for (const id of [13, 14, 15, 16]) offer(2, id)
  merge.closed(2, [STREAM], 'reconnect')
  assert.deepEqual([passed, merge.held], [[10], 4], 'the third may still deliver 11 and 12')
  offer(3, 15)
  assert.deepEqual([passed, merge.held], [[10, 13, 14, 15, 15, 16], 0], 'it began after them')
})

test('M3 waits at most five seconds', async () => {
  const { clock, passed, merge, offer } = scene()
  merge.opened(1, [STREAM, QUOTES])
  offer(1, 10)
  offer(1, 10, QUOTES)
  merge.opened(2, [STREAM, QUOTES])
  offer(2, 13)
  offer(2, 20, QUOTES)
  await clock.advance(4900)
  assert.deepEqual(passed, [10, 10])
  await clock.advance(200)
  assert.deepEqual(passed, [10, 10, 13, 20])
  assert.equal(merge.held, 0)
})

test('M4 holds the quotes of a new connection until the old one has reached them', () => {
  const { passed, merge, offer } = scene()
  merge.opened(1, [QUOTES])
  offer(1, 100, QUOTES)
  merge.opened(2, [QUOTES])
  offer(2, 105, QUOTES)
  offer(2, 107, QUOTES)
  offer(1, 103, QUOTES)
  assert.deepEqual(passed, [100, 103])
  offer(1, 105, QUOTES)
  assert.deepEqual(passed, [100, 103, 105, 105, 107], 'continuity discards the duplicate')
  offer(2, 109, QUOTES)
  assert.deepEqual(passed.slice(5), [109], 'from then on the faster connection leads')
})

test('M5 fills the ids that one of two connections has lost, in order', () => {
  const { passed, merge, offer } = scene()
  merge.opened(1, [STREAM])
  merge.opened(2, [STREAM])
  for (const [connection, id] of [
    [1, 1],
    [2, 1],
    [1, 2],
    [2, 2],
    [1, 4],
    [1, 5],
    [2, 3],
    [2, 4],
    [2, 5],
    [1, 6],
  ] as const)
    offer(connection, id)
  assert.deepEqual([...new Set(passed)], [1, 2, 3, 4, 5, 6])
})

test('M6 passes every event once no other connection can deliver it, and first times in order whatever is lost', () => {
  const losses = fc.array(fc.tuple(fc.boolean(), fc.boolean()), { minLength: 1, maxLength: 60 })
  fc.assert(
    fc.property(losses, fc.array(fc.boolean(), { maxLength: 200 }), (lost, turns) => {
      const { passed, merge, offer } = scene()
      merge.opened(1, [STREAM])
      merge.opened(2, [STREAM])
      const queues = [0, 1].map((leg) =>
        lost.flatMap((flags, i) => (flags[leg] === true && i > 0 ? [] : [i + 1])),
      )
      const next = (leg: number) => {
        const id = queues[leg]?.shift()
        if (id !== undefined) offer(leg + 1, id)
      }
      for (const turn of turns) next(turn ? 1 : 0)
      while (queues.some((queue) => queue.length > 0)) for (const leg of [0, 1]) next(leg)
      merge.closed(1, [STREAM], 'reconnect')
      merge.closed(2, [STREAM], 'reconnect')
      const first = [...new Set(passed)]
      const delivered = lost.flatMap((flags, i) => (flags[0] && flags[1] && i > 0 ? [] : [i + 1]))
      // Every received event is passed on, in order.
      assert.deepEqual(first, delivered)
      assert.equal(merge.held, 0)
    }),
  )
})

const RARE = 'rareusdt@bookTicker'

test('M7 a successor that is open but has delivered nothing does not cover for a failed connection', async () => {
  const { clock, merge, offer } = scene()
  merge.opened(1, [QUOTES])
  offer(1, 1, QUOTES)
  assert.deepEqual(merge.opened(2, [QUOTES]), [])
  await clock.advance(2000)
  assert.deepEqual(merge.closed(1, [QUOTES], 'reconnect'), [QUOTES])
  assert.deepEqual(merge.opened(3, [QUOTES]), [QUOTES], 'nor does it cover for another')
})

test('M7 a connection that failed before its successor delivered interrupts every stream, once', async () => {
  const { clock, told, passed, merge, offer } = scene()
  merge.opened(1, [QUOTES, RARE])
  offer(1, 1, QUOTES)
  offer(1, 1, RARE)
  await clock.advance(20_000)
  merge.opened(2, [QUOTES, RARE])
  offer(2, 500, QUOTES)
  await clock.advance(5100)
  assert.deepEqual([told, passed], [[QUOTES], [1, 1, 500]], 'reported before the first quote is forwarded')
  offer(2, 501, QUOTES)
  await clock.advance(900)
  assert.deepEqual(merge.closed(1, [QUOTES, RARE], 'reconnect'), [RARE])
})

test('M8 the rollover of a healthy connection interrupts nothing, however rarely its symbols trade', async () => {
  const { clock, told, merge, offer } = scene()
  merge.opened(1, [QUOTES, RARE, STREAM])
  offer(1, 1, RARE)
  await clock.advance(40_000)
  merge.opened(2, [QUOTES, RARE, STREAM])
  await clock.advance(25_000)
  offer(2, 7, STREAM)
  await clock.advance(300)
  offer(1, 7, STREAM)
  await clock.advance(5900)
  offer(2, 2, RARE)
  assert.deepEqual(merge.closed(1, [QUOTES, RARE, STREAM], 'reconnect'), [])
  await clock.advance(10_000)
  assert.deepEqual(told, [])
})

test('M9 a connection with a silent stream does not cover that stream when the other fails', async () => {
  const { clock, merge, offer } = scene()
  merge.opened(1, [QUOTES, RARE])
  merge.opened(2, [QUOTES, RARE])
  for (const connection of [1, 2]) for (const stream of [QUOTES, RARE]) offer(connection, 1, stream)
  for (let id = 2; id < 20; id++) {
    await clock.advance(1000)
    offer(1, id, QUOTES)
    for (const connection of [1, 2]) offer(connection, id, STREAM)
    offer(2, id, RARE)
    offer(1, id, RARE)
  }
  assert.deepEqual(merge.closed(1, [QUOTES, RARE], 'reconnect'), [QUOTES])
  const quiet = scene(30_000)
  quiet.merge.opened(1, [QUOTES])
  quiet.offer(1, 1, QUOTES)
  await quiet.clock.advance(31_000)
  const uncovered = quiet.merge.opened(2, [QUOTES])
  assert.deepEqual(uncovered, [QUOTES], 'a stream silent for longer than usual is no cover')
})

test('M10 streams subscribed after the opening are covered once the subscription is confirmed and has delivered', async () => {
  const { clock, merge, offer } = scene()
  merge.opened(1, [QUOTES, RARE], [RARE])
  offer(1, 1, QUOTES)
  merge.subscribed(1, [RARE])
  offer(1, 1, RARE)
  await clock.advance(60_000)
  offer(1, 2, QUOTES)
  merge.opened(2, [QUOTES, RARE], [RARE])
  offer(2, 3, QUOTES)
  offer(1, 3, QUOTES)
  const uncovered = merge.closed(1, [QUOTES, RARE], 'reconnect')
  assert.deepEqual(uncovered, [RARE], 'the old one failed before the SUBSCRIBE was answered')

  merge.subscribed(2, [RARE])
  offer(2, 4, QUOTES)
  merge.opened(3, [QUOTES, RARE], [RARE])
  offer(3, 5, QUOTES)
  offer(2, 5, QUOTES)
  merge.subscribed(3, [RARE])
  offer(3, 6, QUOTES)
  offer(2, 6, QUOTES)
  assert.deepEqual(merge.closed(2, [QUOTES, RARE], 'reconnect'), [])
})
