import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { StreamEvent } from '../src/ingestion/continuity.ts'
import { StreamMerge } from '../src/ingestion/stream-merge.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const STREAM = 'btcusdt@trade'
const QUOTES = 'btcusdt@bookTicker'

function scene() {
  const clock = new VirtualClock()
  const passed: number[] = []
  const merge = new StreamMerge<StreamEvent>(clock, ({ id }) => passed.push(id))
  const offer = (connection: number, id: number, type: StreamEvent['type'] = 'trade') =>
    merge.offer({
      stream: type === 'trade' ? STREAM : QUOTES,
      symbol: 'BTCUSDT',
      type,
      id,
      timeMs: id,
      connection,
      receiptMs: 0,
    })
  return { clock, passed, merge, offer }
}

test('M1 holds the new connection until the old one has delivered up to its first event', () => {
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

test('M2 lets go what it holds when the old connection has closed', () => {
  const { passed, merge, offer } = scene()
  merge.opened(1, [STREAM])
  offer(1, 10)
  merge.opened(2, [STREAM])
  offer(2, 13)
  assert.deepEqual(merge.closed(1, [STREAM]), [])
  assert.deepEqual(passed, [10, 13])
  assert.deepEqual(merge.closed(2, [STREAM]), [STREAM], 'now nobody delivers')
})

test('M3 waits no longer than five seconds', async () => {
  const { clock, passed, merge, offer } = scene()
  merge.opened(1, [STREAM, QUOTES])
  offer(1, 10)
  offer(1, 10, 'bookTicker')
  merge.opened(2, [STREAM, QUOTES])
  offer(2, 13)
  offer(2, 20, 'bookTicker')
  await clock.advance(4900)
  assert.deepEqual(passed, [10, 10])
  await clock.advance(200)
  assert.deepEqual(passed, [10, 10, 13, 20])
  assert.equal(merge.held, 0)
})

test('M4 holds the quotes of a new connection until the old one has got as far', () => {
  const { passed, merge, offer } = scene()
  merge.opened(1, [QUOTES])
  offer(1, 100, 'bookTicker')
  merge.opened(2, [QUOTES])
  offer(2, 105, 'bookTicker')
  offer(2, 107, 'bookTicker')
  offer(1, 103, 'bookTicker')
  assert.deepEqual(passed, [100, 103])
  offer(1, 105, 'bookTicker')
  assert.deepEqual(passed, [100, 103, 105, 105, 107], 'the repeat is for continuity to drop')
  offer(2, 109, 'bookTicker')
  assert.deepEqual(passed.slice(5), [109], 'from then on the faster one leads')
})

test('M5 closes what one of two connections has lost, in order', () => {
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

test('M6 passes everything once it can come from nowhere else, and first times in rising order whatever is lost on the way', () => {
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
      merge.closed(1, [STREAM])
      merge.closed(2, [STREAM])
      const first = [...new Set(passed)]
      const delivered = lost.flatMap((flags, i) => (flags[0] && flags[1] && i > 0 ? [] : [i + 1]))
      assert.deepEqual(
        [...first].sort((a, b) => a - b),
        delivered,
        'nothing that came is kept back',
      )
      assert.deepEqual(
        first,
        [...first].sort((a, b) => a - b),
        'in order',
      )
      assert.equal(merge.held, 0)
    }),
  )
})
