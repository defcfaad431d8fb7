import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { QuoteSequence } from '../src/ingestion/continuity/quote-sequence.ts'
import { Sequence } from '../src/ingestion/continuity/sequence.ts'
import type { Observed } from '../src/ingestion/continuity/verdict.ts'
import { column } from './support/columns.ts'

const at = (id: number, timeMs = id, connection = 0): Observed => ({ firstId: id, id, timeMs, connection })

/** A sequence that has observed these events. */
function after(...events: Observed[]) {
  const sequence = new Sequence<Observed>()
  for (const event of events) sequence.observe(event)
  return sequence
}

const kindsOf = (sequence: Sequence<Observed>, ...events: Observed[]) =>
  events.map((event) => sequence.observe(event).kind)

/** The verdict on an event, which is to be a reset. */
function resetBy(sequence: Sequence<Observed>, event: Observed) {
  const verdict = sequence.observe(event)
  return verdict.kind === 'reset' ? verdict : assert.fail(verdict.kind)
}

test('S1–S4 forwards each id once in any order, with duplicates and jumps, and knows the holes', () => {
  const ids = fc.array(fc.integer({ min: 100, max: 160 }), { minLength: 1, maxLength: 120 })
  fc.assert(
    fc.property(ids, (observed) => {
      const sequence = new Sequence<Observed>()
      const forwarded = new Set<number>()
      const first = observed[0] ?? 0
      for (const id of observed) {
        const { kind } = sequence.observe(at(id))
        if (kind !== 'next' && kind !== 'late') continue
        assert.ok(!forwarded.has(id), `${id} is forwarded once`)
        forwarded.add(id)
      }
      const above = observed.filter((id) => id >= first)
      assert.deepEqual(
        [...forwarded].sort((a, b) => a - b),
        [...new Set(above)].sort((a, b) => a - b),
      )
      const missing = sequence.holes.flatMap(({ from, to }) =>
        Array.from({ length: to - from + 1 }, (_, i) => from + i),
      )
      const last = Math.max(...above)
      assert.deepEqual(
        missing,
        Array.from({ length: last - first + 1 }, (_, i) => first + i).filter((id) => !forwarded.has(id)),
      )
    }),
  )
})

test('S2 names the ids missing between two events', () => {
  const sequence = new Sequence<Observed>()
  assert.deepEqual(sequence.observe(at(7)), { kind: 'next', missing: null, released: 0 })
  assert.deepEqual(sequence.observe(at(8)), { kind: 'next', missing: null, released: 0 })
  assert.deepEqual(sequence.observe(at(12)), { kind: 'next', missing: { from: 9, to: 11 }, released: 0 })
  assert.deepEqual(sequence.observe(at(10)), { kind: 'late' })
  assert.deepEqual(sequence.holes, [
    { from: 9, to: 9 },
    { from: 11, to: 11 },
  ])
})

test('S5 duplicates on a slower connection cause no reset when an id has an earlier time than its predecessor', () => {
  const events = (connection: number) => [7, 8, 9].map((id) => at(id, 1009, connection))
  const sequence = after(...events(1), at(10, 1008, 1))
  assert.deepEqual(kindsOf(sequence, ...events(2)), ['duplicate', 'duplicate', 'duplicate'])
})

test('S5 detects restarted ids: three far below the last, later in time, on one connection', () => {
  const sequence = after(at(1000, 5000))
  assert.deepEqual(kindsOf(sequence, at(1, 6000), at(2, 6001)), ['held', 'held'])
  const verdict = resetBy(sequence, at(4, 6002))
  assert.deepEqual(column(verdict.events, 'id'), [1, 2, 4])
  assert.deepEqual(verdict.missing, [{ from: 3, to: 3 }], 'the new sequence begins with its first id')
  assert.deepEqual([sequence.epoch, sequence.memory.first, sequence.last], [1, 1, 4])
})

test('S5 a ledger row raises the last id without a time: redelivered ids that fill it do not count as new', () => {
  const sequence = after(at(100))
  sequence.lack(0, { from: 101, to: 110 })
  for (let id = 101; id <= 104; id++) assert.equal(sequence.observe(at(id)).kind, 'late')
  // Over REST.
  sequence.fill({ from: 105, to: 110 }, 110)
  for (let id = 101; id <= 110; id++) assert.equal(sequence.observe(at(id)).kind, 'duplicate', String(id))
})

test('S6 recognises duplicates: older in time, on two connections, or followed by the old sequence', () => {
  const sequence = after(at(1000, 5000))
  assert.equal(sequence.observe(at(999, 4000)).kind, 'duplicate')
  sequence.observe(at(1, 6000, 0))
  assert.deepEqual(
    sequence.observe(at(2, 6001, 1)),
    { kind: 'held', released: 0 },
    'another connection is suspected separately',
  )
  assert.deepEqual(sequence.observe(at(1001, 6002)), { kind: 'next', missing: null, released: 2 })
  assert.equal(sequence.epoch, 0)
})

test('S5 detects new ids over two connections that deliver in turn, and forwards the events of both', () => {
  const sequence = after(at(5_000_000, 5000))
  const held = [at(7, 6000, 0), at(7, 6000, 1), at(8, 6001, 1), at(9, 6002, 0)]
  assert.deepEqual(kindsOf(sequence, ...held), ['held', 'held', 'held', 'held'])
  const verdict = resetBy(sequence, at(10, 6003, 0))
  assert.deepEqual(column(verdict.events, 'id'), [7, 8, 9, 10])
  assert.equal(held.length + 1, verdict.events.length + verdict.released, 'each frame in one counter')
  assert.deepEqual(verdict.missing, [])
  assert.equal(sequence.observe(at(9, 6002, 1)).kind, 'duplicate')
  // Another connection delivers lower ids of the new sequence, and the rest of the old one.
  const lower = { kind: 'next', missing: { from: 6, to: 6 }, released: 0 }
  assert.deepEqual(sequence.observe(at(5, 6000, 1)), lower)
  assert.deepEqual(sequence.observe(at(6, 5999, 1)), { kind: 'late' })
  const lagging = [1, 2].map((connection) => at(5_000_001, 6004, connection))
  assert.deepEqual(kindsOf(sequence, ...lagging), ['over', 'duplicate'], 'no jump of the new ids')
  assert.deepEqual([sequence.memory.first, sequence.last, sequence.holes], [5, 10, []])
})

test('S5 any number of wrong times of ids near the last cause no reset', () => {
  const sequence = new Sequence<Observed>()
  for (let id = 4_000_000_000; id < 4_000_001_000; id++) sequence.observe(at(id, 5000))
  for (let id = 4_000_000_100; id < 4_000_000_200; id++) {
    assert.deepEqual(sequence.observe(at(id, 5001, 1)), { kind: 'second' })
    assert.deepEqual(sequence.observe(at(id, 5001, 2)), { kind: 'duplicate' }, 'a copy')
  }
  const aggregates = [100, 101, 100, 101].map((lastTradeId) =>
    sequence.observe({ firstId: 4_000_000_300, id: 4_000_000_300, timeMs: 5001, lastTradeId, connection: 1 }),
  )
  assert.deepEqual(column(aggregates, 'kind'), ['second', 'second', 'duplicate', 'duplicate'])
  assert.equal(sequence.epoch, 0)
})

test('S5 detects ids set back by a few thousand, a minute later', () => {
  const sequence = new Sequence<Observed>({ epoch: 0, last: 4_000_000_000, last_time: 5000, holes: [] })
  const back = [0, 1, 2].map((i) => at(3_999_995_000 + i, 70_000 + i))
  assert.deepEqual(kindsOf(sequence, ...back), ['held', 'held', 'reset'])
})

test('S5 abandoned ids without a known time cause no reset', () => {
  const sequence = after(at(4_000_000_000, 5000))
  sequence.lack(0, { from: 4_000_000_001, to: 4_000_000_010 })
  sequence.fill({ from: 4_000_000_001, to: 4_000_000_010 })
  for (let id = 4_000_000_001; id <= 4_000_000_010; id++)
    assert.deepEqual(sequence.observe(at(id, 3_600_000 + id - 4_000_000_000)), { kind: 'second' })
  assert.equal(sequence.epoch, 0)
})

test('S6 an old id on a slower connection does not refute the new ids; one later in time does', () => {
  const sequence = after(at(5_000_000, 5000, 2), at(7, 6000, 1), at(8, 5999, 1))
  assert.deepEqual(sequence.observe(at(5_000_001, 5001, 2)), { kind: 'next', missing: null, released: 0 })
  assert.deepEqual(column(resetBy(sequence, at(9, 6001, 1)).events, 'id'), [7, 8, 9])
  const other = after(at(5_000_000, 5000, 2), at(7, 6000, 1))
  assert.deepEqual(other.observe(at(5_000_001, 6000, 2)), { kind: 'next', missing: null, released: 1 })
  assert.deepEqual(
    column(other.takeSecond(), 'id'),
    [],
    'an id below all observed ones may have been another trade',
  )
})

test('S7 continues from memory: an event in Kafka is a duplicate, one that Kafka lacks is not', () => {
  const holes = [{ from: 20, to: 22 }]
  const sequence = new Sequence<Observed>({ epoch: 0, last: 50, last_time: 50, holes })
  assert.deepEqual(kindsOf(sequence, at(21), at(21)), ['late', 'duplicate'])
  assert.deepEqual(sequence.observe(at(60)), { kind: 'next', missing: { from: 51, to: 59 }, released: 0 })
  assert.deepEqual(sequence.expect(65, 65), { from: 61, to: 65 })
  assert.equal(sequence.fill({ from: 0, to: 100 }), 2 + 9 + 5)
  assert.deepEqual(sequence.holes, [])
})

test('S10 an aggTrade with later trades is no duplicate, whatever its time, but its copies are', () => {
  const sequence = new Sequence<Observed>()
  const kind = (id: number, lastTradeId: number) =>
    sequence.observe({ firstId: id, id, timeMs: 1000, lastTradeId, connection: 0 }).kind
  const first = [kind(10, 99), kind(11, 100), kind(11, 101), kind(11, 101)]
  assert.deepEqual(first, ['next', 'next', 'second', 'duplicate'])
  assert.deepEqual([kind(12, 102), kind(11, 101), kind(11, 100)], ['next', 'duplicate', 'duplicate'])
  // Backfill has delivered ids of which only the time is known.
  assert.deepEqual(sequence.expect(15, 1000), { from: 13, to: 15 })
  sequence.fill({ from: 13, to: 15 }, 1000)
  const later = [kind(14, 104), kind(16, 106), kind(15, 105), kind(16, 107)]
  assert.deepEqual(later, ['duplicate', 'next', 'duplicate', 'second'])
  // Trade ids restart while a lagging connection still delivers the old ones.
  assert.deepEqual([kind(17, 3), kind(16, 106), kind(16, 107)], ['next', 'duplicate', 'duplicate'])
  const remembered = new Sequence<Observed>({ epoch: 0, last: 50, last_time: 1000, holes: [] })
  assert.equal(
    remembered.observe({ firstId: 50, id: 50, timeMs: 1000, lastTradeId: 9, connection: 0 }).kind,
    'duplicate',
  )
})

test('S7 searches for ranges below the first id that another instance lacks, in any order', () => {
  const sequence = after(at(4667))
  for (const [from, to] of [
    [141, 185],
    [233, 298],
    [186, 232],
    [299, 4666],
  ] as const) {
    sequence.lack(0, { from, to })
    assert.deepEqual(sequence.holesIn({ from, to }), [{ from, to }])
  }
  assert.deepEqual(sequence.holesIn({ from: 0, to: 5000 }), [{ from: 141, to: 4666 }])
})

test('Q2 forgets ids after a minute or two, so that memory does not grow over time, but never the last 512', () => {
  const liveTenMinutes = (quotesAMinute: number) => {
    const order = new QuoteSequence()
    for (let minute = 0; minute < 10; minute++) {
      order.forgetOld()
      for (let n = 0; n < quotesAMinute; n++) order.observe(minute * 100_000 + 2 * n)
    }
    return order
  }
  const busy = liveTenMinutes(2000)
  assert.equal(busy.observe(900_001), 'forward')
  assert.equal(busy.observe(800_001), 'forward')
  assert.equal(busy.observe(700_001), 'duplicate', 'older than all remembered ids')
  const slow = liveTenMinutes(200)
  assert.equal(slow.observe(700_001 + 2 * 100), 'forward', 'among the last 512')
  assert.equal(slow.observe(600_001), 'duplicate')
})

test('Q1–Q2 forwards each quote once, including late ones, and follows restarted update ids', () => {
  const order = new QuoteSequence()
  const verdicts = [10, 12, 11, 12, 10].map((u) => order.observe(u))
  assert.deepEqual(verdicts, ['forward', 'forward', 'forward', 'duplicate', 'duplicate'])
  for (let u = 100; u < 30_000; u++) order.observe(u)
  assert.equal(order.observe(5), 'duplicate', 'older than all remembered ids')
  const restarted = Array.from({ length: 200 }, (_, u) => order.observe(u))
  assert.equal(restarted.filter((verdict) => verdict === 'reset').length, 1)
  assert.ok(restarted.slice(120).every((verdict) => verdict === 'forward'))
})
