import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Gap, gapId } from '../src/foundation/market/gap.ts'
import { countIds, type IdRange, normalise, subtract } from '../src/foundation/market/id-ranges.ts'
import { AcknowledgedState } from '../src/ingestion/checkpoint/acknowledged-state.ts'
import { foreignGaps } from '../src/ingestion/checkpoint/foreign-gaps.ts'
import { Continuity, type StreamEvent } from '../src/ingestion/continuity/continuity.ts'
import { DiscardedEvents } from '../src/ingestion/continuity/discarded-events.ts'
import { Sequence, type SequenceMemory } from '../src/ingestion/continuity/sequence.ts'
import { StreamMerge } from '../src/ingestion/continuity/stream-merge.ts'
import type { Observed } from '../src/ingestion/continuity/verdict.ts'
import { column } from './support/columns.ts'
import { ledgerAlone } from './support/ledger-alone.ts'
import { gapRow } from './support/records.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const STREAM = 'btcusdt@depth@100ms'
const T0 = Date.UTC(2026, 0, 1)

const update = (firstId: number, id: number, timeMs = T0 + id, connection = 0): Observed => ({
  ...{ firstId, id, timeMs, connection },
})

const ofRanges = (memory?: SequenceMemory) => new Sequence<Observed>(memory, true)

const rangeOf = ({ firstId: from, id: to }: Pick<Observed, 'firstId' | 'id'>): IdRange => ({ from, to })

/** Cuts the ids from 1 on into consecutive ranges of these lengths. */
function cut(lengths: readonly number[]): IdRange[] {
  let to = 0
  return lengths.map((length) => {
    const from = to + 1
    to += length
    return { from, to }
  })
}

/** The true sequence, cut differently for two connections, each of which may lose, repeat and swap updates. */
const lengths = (total: number) =>
  fc
    .array(fc.integer({ min: 1, max: 9 }), { minLength: total, maxLength: total })
    .map((all) => all.filter((_, i) => all.slice(0, i + 1).reduce((sum, one) => sum + one, 0) <= total * 3))

function scene() {
  const clock = new VirtualClock()
  const { ledger, rows } = ledgerAlone(T0)
  const continuity = new Continuity<StreamEvent>(ledger)
  const forwarded: IdRange[] = []
  const next = {
    deliver(event: StreamEvent) {
      forwarded.push(...continuity.observe(event).map(rangeOf))
      return false
    },
  }
  const merge = new StreamMerge<StreamEvent>(
    clock,
    next,
    { patienceMs: () => Number.POSITIVE_INFINITY },
    continuity,
  )
  const offer = (connection: number, { from, to }: IdRange, timeMs = T0 + 10 * to + 3 * connection) => {
    const event = { stream: STREAM, symbol: 'BTCUSDT', type: 'depth', firstId: from, id: to } as const
    merge.offer({ ...event, timeMs, connection, receiptMs: timeMs }, clock.monotonicMs())
  }
  return { clock, ledger, rows, continuity, forwarded, merge, offer }
}

const idsOf = (rows: readonly Gap[]) =>
  rows.flatMap(({ from_id: from, to_id: to }) => (from === null || to === null ? [] : [{ from, to }]))

test('D1 an update inside what is stored is a duplicate, an overlap is forwarded whole, a later one reveals a hole', () => {
  const sequence = ofRanges()
  const missing = (from: number, to: number) => ({ kind: 'next', missing: { from, to }, released: 0 })
  const next = { kind: 'next', missing: null, released: 0 }
  assert.deepEqual(sequence.observe(update(10, 19)), next)
  assert.deepEqual(sequence.observe(update(20, 20)), next)
  assert.deepEqual(sequence.observe(update(12, 18)), { kind: 'duplicate' })
  assert.deepEqual(sequence.observe(update(15, 24)), next)
  assert.deepEqual(sequence.observe(update(30, 39)), missing(25, 29))
  assert.equal(sequence.joinedFrom, 30)
  assert.deepEqual(sequence.observe(update(23, 26)), { kind: 'late' })
  assert.deepEqual(sequence.holes, [{ from: 27, to: 29 }])
  assert.deepEqual(sequence.observe(update(28, 45)), next, 'an overlap that fills a part of a hole')
  assert.deepEqual(sequence.holes, [{ from: 27, to: 27 }])
})

test('D1 forwards whatever brings a new id, in any order, and knows exactly which ids are missing', () => {
  const range = fc.tuple(fc.integer({ min: 100, max: 160 }), fc.integer({ min: 0, max: 12 }))
  fc.assert(
    fc.property(fc.array(range, { minLength: 1, maxLength: 60 }), (ranges) => {
      const sequence = ofRanges()
      const [first = 0] = ranges[0] ?? []
      let stored: IdRange[] = []
      for (const [from, length] of ranges) {
        const to = from + length
        const { kind } = sequence.observe(update(from, to, T0))
        const fresh = subtract([{ from: Math.max(from, first), to }], stored)
        assert.equal(kind === 'next' || kind === 'late', fresh.length > 0, `${from}..${to}`)
        stored = normalise([...stored, ...fresh])
      }
      const last = stored.at(-1)?.to ?? 0
      assert.deepEqual(normalise(sequence.holes), subtract([{ from: first, to: last }], stored))
      assert.ok((sequence.joinedFrom ?? 0) > (sequence.holes.at(-1)?.to ?? 0))
    }),
  )
})

test('D2 two connections that cut differently: nothing received is missing, and the ledger has exactly the rest', () => {
  const losses = fc.array(fc.nat(5), { minLength: 40, maxLength: 40 })
  const turns = fc.array(fc.boolean(), { maxLength: 80 })
  const scenario = fc.tuple(lengths(20), lengths(20), losses, losses, turns)
  fc.assert(
    fc.property(scenario, ([one, other, lostOne, lostOther, order]) => {
      const { rows, forwarded, merge, offer } = scene()
      merge.opened(1, [STREAM])
      merge.opened(2, [STREAM])
      // One of six is lost, one of six comes twice.
      const queues = [cut(one), cut(other)].map((ranges, leg) =>
        ranges.flatMap((range, i) => {
          const fate = (leg === 0 ? lostOne : lostOther)[i]
          return fate === 0 && i > 0 ? [] : fate === 1 ? [range, range] : [range]
        }),
      )
      const delivered = normalise(queues.flat())
      const deliver = (leg: number) => {
        const range = queues[leg]?.shift()
        if (range !== undefined) offer(leg + 1, range)
      }
      for (const turn of order) deliver(turn ? 1 : 0)
      while (queues.some((queue) => queue.length > 0)) for (const leg of [0, 1]) deliver(leg)
      merge.closed(1, [STREAM], 'reconnect')
      merge.closed(2, [STREAM], 'reconnect')
      const stored = normalise(forwarded)
      const last = stored.at(-1)?.to ?? 0
      assert.deepEqual(stored, delivered)
      assert.equal(merge.held, 0)
      assert.deepEqual(normalise(idsOf(rows)), subtract([{ from: 1, to: last }], delivered))
      assert.equal(countIds(idsOf(rows)), countIds(normalise(idsOf(rows))), 'no id in two rows')
      // Each brings the book forward: none fills a hole that was declared too early.
      assert.ok(forwarded.every(({ to }, i) => i === 0 || to > (forwarded[i - 1]?.to ?? 0)))
    }),
  )
})

test('D2 a rollover of connections that cut differently leaves no hole', () => {
  const { rows, forwarded, merge, offer } = scene()
  merge.opened(1, [STREAM])
  offer(1, { from: 1, to: 10 })
  merge.opened(2, [STREAM])
  offer(2, { from: 17, to: 24 })
  offer(2, { from: 25, to: 31 })
  assert.equal(merge.held, 2, 'the old connection may still deliver 11 to 16')
  offer(1, { from: 11, to: 19 })
  merge.closed(1, [STREAM], 'reconnect')
  offer(2, { from: 32, to: 33 })
  assert.deepEqual(column(forwarded, 'to'), [10, 19, 24, 31, 33])
  assert.deepEqual(rows, [])
})

test('D3 a hole is a closed row with its ids and the event times around it, once the other connection had its time', async () => {
  const { clock, ledger, rows, merge, offer } = scene()
  merge.opened(1, [STREAM])
  merge.opened(2, [STREAM])
  for (const connection of [1, 2]) offer(connection, { from: 1, to: 10 }, T0 + 100)
  offer(1, { from: 21, to: 30 }, T0 + 300)
  await clock.advance(4900)
  assert.deepEqual(rows, [])
  await clock.advance(200)
  const [row] = rows
  const { from_id, to_id, from_time, to_time, cause, status, reason, closed_at, revision } =
    row ?? assert.fail()
  assert.deepEqual([from_id, to_id, from_time, to_time], [11, 20, T0 + 100, T0 + 300])
  assert.deepEqual([cause, status, revision, closed_at], ['missed', 'unrecoverable', 1, T0])
  assert.equal(reason, 'past order book updates cannot be fetched')
  assert.deepEqual(ledger.openGaps, [], 'REST is not asked')
  assert.deepEqual(
    [ledger.opened.of('depth'), ledger.closed.of('depth')],
    [{ missed: 1 }, { unrecoverable: 1 }],
  )
})

test('D3 reconnects, restarts, discarded and oversized updates make rows with the causes of trades', () => {
  const { rows, continuity, ledger, offer, merge } = scene()
  continuity.restore('BTCUSDT', 'depth', { epoch: 0, last: 10, last_time: T0, holes: [] })
  merge.opened(1, [STREAM])
  offer(1, { from: 15, to: 20 })
  merge.closed(1, [STREAM], 'reconnect')
  merge.opened(2, [STREAM])
  offer(2, { from: 31, to: 40 })
  const discarded = new DiscardedEvents(continuity, ledger)
  const mark = { symbol: 'BTCUSDT', type: 'depth', epoch: 0, timeMs: T0 } as const
  discarded.add({ ...mark, firstId: 31, id: 35 }, 'refused', 0)
  discarded.add({ ...mark, firstId: 36, id: 40 }, 'refused', 0)
  // Another connection has delivered an overlap meanwhile.
  offer(2, { from: 39, to: 45 })
  discarded.enter(0, true)
  offer(2, { from: 46, to: 50 })
  discarded.add({ ...mark, firstId: 46, id: 50 }, 'too large', 0)
  discarded.enter(0, true)
  const found = rows.map(({ from_id, to_id, cause, status }) => [from_id, to_id, cause, status])
  assert.deepEqual(found, [
    [11, 14, 'restart', 'unrecoverable'],
    [21, 30, 'reconnect', 'unrecoverable'],
    [31, 38, 'refused', 'unrecoverable'],
    [46, 50, 'too large', 'unrecoverable'],
  ])
  assert.deepEqual(continuity.chainOf(STREAM), { epoch: 0, joinedFrom: 51, lastId: 50 })
})

test('D3 a request to reopen a hole ends as unrecoverable, and books need a snapshot after it', () => {
  const { rows, ledger, continuity, offer } = scene()
  offer(1, { from: 1, to: 30 })
  const request = gapRow({
    ...{ gap_id: gapId('BTCUSDT', 'depth', 0, 11), event_type: 'depth', from_id: 11, to_id: 20 },
    ...{ status: 'open', reason: null, closed_at: null, revision: 3 },
  })
  foreignGaps(new AcknowledgedState(), ledger, continuity).request(request)
  assert.deepEqual(column(rows, 'status'), ['open', 'unrecoverable'])
  assert.deepEqual([rows.at(-1)?.revision, ledger.openGaps], [5, []])
  assert.deepEqual(continuity.chainOf(STREAM), { epoch: 0, joinedFrom: 21, lastId: 30 })
})

test('C5 an older instance that wakes up enters updates that the newer one has: its row keeps none of them', () => {
  const { rows, ledger, continuity, offer } = scene()
  offer(1, { from: 1, to: 10 })
  offer(1, { from: 21, to: 300 })
  const missed = gapRow({
    ...{ gap_id: gapId('BTCUSDT', 'depth', 0, 5), event_type: 'depth', from_id: 5, to_id: 290 },
    ...{ status: 'unrecoverable', cause: 'reconnect', revision: 1 },
  })
  foreignGaps(new AcknowledgedState(), ledger, continuity).ofOlderInstance(missed)
  const left = new Map(rows.map((row) => [row.gap_id, row]))
  assert.deepEqual(
    [...left.values()].map(({ from_id, to_id, status }) => [from_id, to_id, status]),
    [
      [11, 20, 'unrecoverable'],
      [null, null, 'filled'],
    ],
  )
  assert.ok((left.get(missed.gap_id)?.revision ?? 0) > 1)
})

test('C5 a row of an older instance with updates that this one does not have keeps its ids', () => {
  const { rows, ledger, continuity, offer } = scene()
  const older = foreignGaps(new AcknowledgedState(), ledger, continuity)
  const lost = (from_id: number, to_id: number) =>
    gapRow({
      ...{ gap_id: gapId('BTCUSDT', 'depth', 0, from_id), event_type: 'depth', from_id, to_id },
      ...{ status: 'unrecoverable', cause: 'reconnect', revision: 1 },
    })
  // It records no depth yet; then, one ends above the last update and one begins below the first.
  older.ofOlderInstance(lost(501, 600))
  offer(1, { from: 1000, to: 1010 })
  older.ofOlderInstance(lost(1005, 1020))
  older.ofOlderInstance(lost(990, 1004))
  assert.deepEqual(
    rows.filter(({ from_id, status }) => from_id === null || status === 'filled'),
    [],
  )
})

test('D4 restarted ids raise the epoch, and updates cut differently never look like that', () => {
  const { rows, continuity, forwarded, offer } = scene()
  for (let id = 1_000_000; id < 1_000_500; id += 10) {
    offer(1, { from: id, to: id + 9 }, T0 + id)
    // The other connection cuts in the middle, and names a later time.
    offer(2, { from: id - 5, to: id + 4 }, T0 + id + 60)
  }
  assert.deepEqual([rows, continuity.rejected, continuity.epochOf(STREAM)], [[], [], 0])
  forwarded.length = 0
  const later = T0 + 10_000_000
  offer(1, { from: 1, to: 5 }, later)
  offer(2, { from: 3, to: 8 }, later + 1)
  offer(1, { from: 6, to: 9 }, later + 100)
  assert.equal(continuity.held, 3)
  offer(1, { from: 10, to: 15 }, later + 200)
  assert.deepEqual(normalise(forwarded), [{ from: 1, to: 15 }])
  assert.deepEqual(continuity.chainOf(STREAM), { epoch: 1, joinedFrom: 1, lastId: 15 })
  const [row] = rows
  assert.deepEqual([row?.cause, row?.status, row?.from_id, row?.epoch], ['reset', 'unrecoverable', null, 1])
  assert.deepEqual(continuity.rejected, [])
})

test('D5 forgets a hole after a minute or two, and forwards a late update until then', () => {
  const { continuity, forwarded, offer } = scene()
  offer(1, { from: 1, to: 10 })
  offer(1, { from: 21, to: 30 })
  continuity.forgetOld(0)
  continuity.forgetOld(60_000)
  offer(1, { from: 8, to: 12 })
  assert.deepEqual(forwarded.at(-1), { from: 8, to: 12 })
  assert.deepEqual(continuity.holesOf(STREAM), [{ from: 13, to: 20 }])
  continuity.forgetOld(120_000)
  assert.deepEqual(continuity.holesOf(STREAM), [])
  offer(1, { from: 13, to: 20 })
  assert.equal(continuity.duplicates, 1)
})

test('C2 acknowledged updates and ledger rows give the same memory in any order', () => {
  const scenario = fc.tuple(
    lengths(12),
    fc.array(fc.boolean(), { minLength: 40, maxLength: 40 }),
    fc.infiniteStream(fc.nat()),
  )
  fc.assert(
    fc.property(scenario, ([sizes, lost, dice]) => {
      const ranges = cut(sizes)
      const kept = ranges.filter((_, i) => i === 0 || lost[i] !== true)
      const { ledger, rows } = ledgerAlone(T0)
      const continuity = new Continuity<StreamEvent>(ledger)
      for (const { from, to } of kept) {
        const event = { stream: STREAM, symbol: 'BTCUSDT', type: 'depth', firstId: from, id: to } as const
        continuity.observe({ ...event, timeMs: T0 + to, receiptMs: T0 + to, connection: 1 })
      }
      const mark = { symbol: 'BTCUSDT', type: 'depth', epoch: 0 } as const
      const steps = [
        ...kept.map(
          ({ from, to }) =>
            (state: AcknowledgedState) =>
              state.event({ ...mark, firstId: from, id: to, timeMs: T0 + to }),
        ),
        ...rows.map((row) => (state: AcknowledgedState) => state.gap(row)),
      ]
      const shuffled = steps
        .map((step) => ({ step, at: dice.next().value ?? 0 }))
        .sort((left, right) => left.at - right.at)
      const memory = new AcknowledgedState()
      memory.restore('BTCUSDT', {
        trade: null,
        aggTrade: null,
        blockTrade: null,
        depth: null,
        bookTicker: null,
        open_gaps: [],
        pending_gaps: [],
      })
      const [first] = steps
      first?.(memory)
      for (const { step } of shuffled) step(memory)
      const { depth } = memory.snapshot('BTCUSDT')
      const last = kept.at(-1)?.to
      assert.deepEqual([depth?.first, depth?.last, depth?.holes], [1, last, []], 'no hole is left')
    }),
  )
})
