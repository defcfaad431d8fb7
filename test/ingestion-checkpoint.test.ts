import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { FetchedMessage } from '../src/foundation/kafka/codec/record-batch.ts'
import { headersNamed } from '../src/foundation/kafka/headers.ts'
import { GAP, type Gap, gapId } from '../src/foundation/market/gap.ts'
import type { GapCause } from '../src/foundation/market/gap-causes.ts'
import { AcknowledgedState } from '../src/ingestion/checkpoint/acknowledged-state.ts'
import {
  type Checkpoint,
  checkpointText,
  emptyCheckpoint,
  parseCheckpoint,
} from '../src/ingestion/checkpoint/checkpoint.ts'
import { RecoveryFold } from '../src/ingestion/checkpoint/recovery-fold.ts'
import { takeOverMemory } from '../src/ingestion/checkpoint/take-over-memory.ts'
import { Continuity, type StreamEvent } from '../src/ingestion/continuity/continuity.ts'
import { DiscardedEvents } from '../src/ingestion/continuity/discarded-events.ts'
import { GapLedger, REASON_RESET } from '../src/ingestion/continuity/gap-ledger.ts'
import { asIdGap } from '../src/ingestion/continuity/gap-rows.ts'
import { type EventMark, EventMessage, type Route } from '../src/ingestion/messages/message.ts'
import { column, columns } from './support/columns.ts'
import { ledgerAlone, tableOf } from './support/ledger-alone.ts'
import { bookTickerValue, gapRow, record, tradeValue } from './support/records.ts'

const SYMBOL = 'BTCUSDT'
const NOW_MS = Date.UTC(2026, 0, 1)
const TRADES = { symbol: SYMBOL, event_type: 'trade', epoch: 0 } as const

function trade(id: number, epoch = 0): EventMark {
  return { symbol: SYMBOL, type: 'trade', epoch, firstId: id, id, timeMs: NOW_MS + id }
}

const row = (from: number, to: number, status: Gap['status'], more: Partial<Gap> = {}) =>
  gapRow({ from_id: from, to_id: to, status, cause: 'missed', detected_at: NOW_MS, ...more })

function ids(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i)
}

function holes(memory: AcknowledgedState): Array<[number, number]> {
  return (memory.snapshot(SYMBOL).trade?.holes ?? []).map(({ from, to }) => [from, to])
}

type Fact = EventMark | Gap

function learn(memory: AcknowledgedState, facts: readonly Fact[]): AcknowledgedState {
  for (const fact of facts) {
    if ('gap_id' in fact) memory.gap(fact)
    else memory.event(fact)
  }
  return memory
}

const memoryOf = (...facts: Fact[]) => learn(new AcknowledgedState(), facts)

test('C1 knows ids that only the ledger contains: requested over REST and not yet forwarded', () => {
  const memory = memoryOf(trade(100), row(101, 104, 'open'))
  assert.deepEqual(holes(memory), [[101, 104]])
  assert.equal(memory.snapshot(SYMBOL).trade?.last, 104)
  memory.event(trade(102))
  assert.deepEqual(holes(memory), [
    [101, 101],
    [103, 104],
  ])
})

test('C1 does not search again for abandoned ids, also beyond the last forwarded one', () => {
  const memory = memoryOf(trade(100), row(101, 104, 'open'), row(101, 104, 'unrecoverable'))
  assert.deepEqual(holes(memory), [])
  assert.deepEqual(memory.snapshot(SYMBOL).open_gaps, [])
  memory.event(trade(200))
  assert.deepEqual(holes(memory), [[105, 199]])
})

test('C2 keeps the newest revision of each row in any reading order', () => {
  const memory = memoryOf(row(101, 104, 'open', { revision: 3 }), row(101, 200, 'open', { revision: 2 }))
  assert.deepEqual(columns(memory.snapshot(SYMBOL).open_gaps, 'revision', 'to_id'), [[3, 104]])
})

test('C2 a row that an older instance opens after the newer one closed it does not count, but its other ids do', () => {
  const closed = row(101, 104, 'filled', { revision: 3 })
  const memory = memoryOf(trade(100), row(101, 104, 'open'), closed, row(101, 110, 'open'))
  assert.deepEqual(memory.snapshot(SYMBOL).open_gaps, [])
  assert.deepEqual(holes(memory), [[105, 110]])
  memory.gap(row(101, 104, 'open', { revision: 2 }))
  assert.deepEqual(holes(memory), [[105, 110]], 'nor is it reopened')
  memory.gap(row(101, 104, 'open', { revision: 5 }))
  assert.deepEqual(holes(memory), [[101, 110]])
})

test('C2 a row of restarted ids counts also when it is read after their first events', () => {
  const late = [row(0, 674, 'open', { epoch: 1 }), row(4000, 4001, 'open')]
  const memory = memoryOf(trade(5000), trade(675, 1), trade(676, 1), ...late)
  assert.deepEqual(holes(memory), [[0, 674]], 'a row of the ids before the restart does not count')
})

test('C1 remembers rows that Kafka does not accept up to a limit, and counts further ones', () => {
  const memory = new AcknowledgedState()
  const rowOf = (symbol: string, id: number) => ({
    ...row(id, id, 'open'),
    symbol,
    gap_id: gapId(symbol, 'trade', 0, id),
  })
  const publish = (symbol: string, rows: number) =>
    Array.from({ length: rows }, (_, id) => memory.publishedNow(rowOf(symbol, id))).filter(Boolean).length
  assert.equal(publish('A', 1500), 1000, 'of one symbol')
  assert.equal(memory.unsavedRows, 500)
  const kept = Array.from({ length: 100 }, (_, i) => publish(`S${i}`, 600))
  assert.equal(1000 + kept.reduce((sum, rows) => sum + rows, 0), 50_000, 'of all')
  assert.ok(memory.publishedNow({ ...rowOf('A', 5), revision: 2 }), 'a newer revision replaces the older one')
  // Acknowledged rows make room.
  assert.equal(memory.publishedNow(rowOf('Z', 1)), false)
  memory.gap(rowOf('A', 7))
  memory.gap(rowOf('A', 7))
  assert.ok(memory.publishedNow(rowOf('Z', 1)))
  assert.equal(memory.publishedNow(rowOf('Z', 2)), false)
})

test('L2 of two windows with the same start the longer one counts, whichever instance wrote it', () => {
  const windowOf = (toMs: number, cause: GapCause) =>
    ledgerAlone(NOW_MS).ledger.outage(SYMBOL, NOW_MS, toMs, cause)
  const short = windowOf(NOW_MS + 700, 'reconnect')
  const long = windowOf(NOW_MS + 60_000, 'restart')
  const back = windowOf(NOW_MS - 5, 'reconnect')
  assert.deepEqual([short.gap_id, back.gap_id], [long.gap_id, long.gap_id])
  assert.ok(short.revision < long.revision && back.revision < short.revision)
  assert.equal(back.to_time, NOW_MS, 'also if the clock was set back')
})

test('L2 a clock window exists next to others with the same start: a longer one need not contain it', () => {
  const { ledger, rows } = ledgerAlone(NOW_MS)
  ledger.outage(SYMBOL, NOW_MS, NOW_MS + 7_200_000, 'clock', 'two hours ahead')
  ledger.outage(SYMBOL, NOW_MS, NOW_MS + 40_000, 'clock', 'two seconds ahead')
  ledger.outage(SYMBOL, NOW_MS, NOW_MS + 50_000, 'restart')
  assert.equal(new Set(rows.map(({ gap_id }) => gap_id)).size, 3)
})

/** Events and rows as ingestion releases them: the row of a gap precedes the event after it. */
const history = fc
  .array(fc.record({ jump: fc.nat({ max: 4 }), fill: fc.boolean(), lose: fc.boolean() }), { maxLength: 40 })
  .map((steps) => {
    const facts: Fact[] = [trade(1000)]
    let id = 1000
    for (const { jump, fill, lose } of steps) {
      const from = id + 1
      id += jump + 1
      if (jump > 0) {
        facts.push(row(from, id - 1, 'open'))
        if (fill) for (let one = from; one < id; one++) facts.push(trade(one))
        if (fill) facts.push(row(from, id - 1, 'filled'))
        else if (lose) facts.push(row(from, id - 1, 'unrecoverable'))
      }
      facts.push(trade(id))
    }
    return facts
  })

/** State of a start from a checkpoint of this state. The topics are read in turn: all rows, then all events. */
function started(before: AcknowledgedState, later: readonly Fact[] = []): AcknowledgedState {
  const after = new AcknowledgedState()
  const memory = { ...emptyCheckpoint('one'), ...before.snapshot(SYMBOL), counter: 1 }
  after.restore(SYMBOL, parseCheckpoint(checkpointText(memory)))
  const isRow = (fact: Fact) => 'gap_id' in fact
  return learn(after, [...later.filter(isRow), ...later.filter((fact) => !isRow(fact))])
}

test('C2 a start has the state of the previous instance, wherever its checkpoint was taken', () => {
  fc.assert(
    fc.property(history, fc.nat({ max: 100 }), (facts, at) => {
      const cut = Math.min(at, facts.length)
      const after = started(memoryOf(...facts.slice(0, cut)), facts.slice(cut))
      assert.deepEqual(after.snapshot(SYMBOL), memoryOf(...facts).snapshot(SYMBOL))
    }),
  )
})

/** A checkpoint of {@link SYMBOL} whose memory ends at this trade. */
function checkpointAt(lastId: number, counter: number, writtenAtMs: number): FetchedMessage {
  const { trade: last } = memoryOf(trade(lastId)).snapshot(SYMBOL)
  return messageOf({ trade: last, counter, written_at: writtenAtMs })
}

function message(text: string): FetchedMessage {
  return new FetchedMessage(0, Buffer.from(SYMBOL), [], Buffer.from(text))
}

const messageOf = (fields: Partial<Checkpoint>) =>
  message(checkpointText({ ...emptyCheckpoint('one'), ...fields }))

test('C1 the checkpoint with the highest counter counts, whatever its clock time', () => {
  const fold = new RecoveryFold([SYMBOL], new Map(), assert.fail)
  fold.checkpoint(checkpointAt(200, 8, NOW_MS - 50 * 60_000))
  // It is in another partition, written before the clock was set back.
  fold.checkpoint(checkpointAt(100, 7, NOW_MS))
  assert.equal(fold.memory.snapshot(SYMBOL).trade?.last, 200)
  assert.equal(fold.counters.get(SYMBOL), 8)
})

test('C1 reports and skips an unreadable checkpoint: the previous one counts, or the topics are read from their beginning', () => {
  const unreadable: string[] = []
  const fold = new RecoveryFold([SYMBOL], new Map(), (symbol) => unreadable.push(symbol))
  fold.checkpoint(message('{"version":1,"kind":"running"'))
  assert.equal(fold.offset('trades', 0), 0)
  fold.checkpoint(checkpointAt(100, 3, NOW_MS))
  fold.checkpoint(message('{}'))
  assert.equal(fold.memory.snapshot(SYMBOL).trade?.last, 100)
  assert.deepEqual(unreadable, [SYMBOL, SYMBOL])
})

/** A start whose newest checkpoint covered `claimed` messages, of which Kafka has `left`. */
function startAfterLoss(claimed: number, left: number, events: readonly EventMark[] = []): AcknowledgedState {
  const quote: EventMark = { ...trade(7), type: 'bookTicker', timeMs: NOW_MS }
  const before = memoryOf(trade(1000), trade(1001), trade(1002), quote)
  const fold = new RecoveryFold([SYMBOL], new Map(), assert.fail, new Map([['trades:0', left]]))
  const held = { offsets: { trades: claimed }, partitions: { trades: 0 } }
  fold.checkpoint(messageOf({ ...before.snapshot(SYMBOL), ...held }))
  for (const event of events) fold.memory.event(event)
  fold.addDisbelieved({ trades: 'trades', depth: 'depth' })
  return fold.memory
}

test('C1 messages lost by Kafka are missing, also if the topics have nothing left of the symbol', () => {
  const memory = startAfterLoss(5, 0)
  assert.deepEqual(holes(memory), [[1000, 1002]])
  assert.equal(memory.snapshot(SYMBOL).trade?.last, 1002)
  // The next quote ends a window that begins with it.
  assert.equal(memory.snapshot(SYMBOL).bookTicker?.last_receipt, NOW_MS)
})

test("C1 of Kafka's messages, no more are missing than it has lost", () => {
  assert.deepEqual(holes(startAfterLoss(50, 49)), [[1002, 1002]])
  assert.deepEqual(holes(startAfterLoss(50, 20, [trade(1000)])), [[1001, 1002]])
  const later = ids(1000, 1005).map((id) => trade(id))
  assert.deepEqual(holes(startAfterLoss(50, 20, later)), [])
})

test('C7 open rows of a distrusted checkpoint are sent to Kafka again unless it has them', () => {
  const rows = [row(10, 19, 'open'), row(30, 39, 'open'), row(50, 59, 'open')]
  const fold = new RecoveryFold([SYMBOL], new Map(), assert.fail, new Map([['gaps:0', 2]]))
  const held = { offsets: { gaps: 3 }, partitions: { gaps: 0 }, open_gaps: rows }
  fold.checkpoint(messageOf(held))
  fold.addDisbelievedRows()
  for (const one of [row(10, 19, 'open'), row(30, 39, 'open'), row(30, 39, 'filled')])
    fold.gap('gaps', message(JSON.stringify(one)))
  const { open_gaps, pending_gaps } = fold.memory.snapshot(SYMBOL)
  assert.deepEqual(pending_gaps, [rows[2]])
  assert.deepEqual(open_gaps, [rows[0], rows[2]])
})

/**
 * Rows that a start publishes and records, given two instances in the ledger topic. @param lostFrom the
 * offset of the first trade that Kafka has lost, which a later checkpoint covers
 */
function startAfterRows(
  written: ReadonlyArray<readonly ['older' | 'newer', Gap]>,
  trades: readonly EventMark[] = [],
  checkpoint: Partial<Checkpoint> = {},
  lostFrom = Number.POSITIVE_INFINITY,
) {
  const fold = new RecoveryFold([SYMBOL], new Map(), assert.fail, new Map([['trades:0', lostFrom]]))
  fold.checkpoint(messageOf({ instance: 'newer', kind: 'start', ...checkpoint }))
  const claims = { offsets: { trades: lostFrom + 1 }, partitions: { trades: 0 }, counter: 2 }
  if (Number.isFinite(lostFrom)) fold.checkpoint(messageOf({ instance: 'older', kind: 'start', ...claims }))
  for (const [by, gap] of written) {
    const headers: Array<[Buffer, Buffer]> = [[Buffer.from('instance'), Buffer.from(by)]]
    fold.gap('gaps', new FetchedMessage(0, Buffer.from(SYMBOL), headers, Buffer.from(JSON.stringify(gap))))
  }
  const { memory, rows } = fold
  learn(memory, trades)
  const published: Gap[] = []
  const ledger = new GapLedger(
    (gap) => memory.published(gap),
    () => NOW_MS,
  )
  const continuity = new Continuity<StreamEvent>(ledger)
  let inStartRecord: readonly Gap[] = []
  takeOverMemory(memory, { rows, lostQuotes: new Map(), isLedgerRecreated: false }, ledger, continuity, {
    writeStart: () => {
      inStartRecord = memory.snapshot(SYMBOL).pending_gaps
    },
    publish: (gap) => published.push(gap),
  })
  const shown = ['gap_id', 'revision', 'from_id', 'to_id', 'status'] as const
  const ranges = published.map((gap) => shown.map((field) => gap[field]))
  const { pending_gaps: pending } = memory.snapshot(SYMBOL)
  return { published, ranges, inStartRecord, pending, openGaps: ledger.openGaps }
}

test('L6 the next start narrows a late row of an older instance that the newer one ended without reading', () => {
  const within = row(120, 129, 'filled')
  const beside = row(195, 209, 'filled')
  const { published, ranges, inStartRecord, openGaps } = startAfterRows([
    ['older', row(120, 129, 'open')],
    ['older', within],
    ['older', beside],
    ['newer', row(100, 199, 'open')],
    ['newer', row(100, 199, 'filled')],
  ])
  assert.deepEqual(ranges, [
    // Above the emptied row, whose id a part of this one may get when it is reopened.
    [gapId(SYMBOL, 'trade', 0, 100), 4, 100, 199, 'filled'],
    [within.gap_id, 3, null, null, 'filled'],
    [beside.gap_id, 3, 200, 209, 'filled'],
  ])
  assert.deepEqual(inStartRecord, published, 'they survive another crash at this moment')
  assert.deepEqual(openGaps, [])
})

test('L6 a row whose trades Kafka has lost is reopened, whichever instance has filled it', () => {
  const trades = [100, 104].map((id) => trade(id))
  for (const writer of ['newer', 'older'] as const) {
    const rows = [row(102, 103, 'open'), row(102, 103, 'filled', { revision: 2 })]
    const written = rows.map((gap) => [writer, gap] as const)
    const { pending } = startAfterRows(written, trades, {}, 10)
    assert.deepEqual(columns(pending, 'revision', 'from_id', 'to_id', 'status'), [
      [3, 102, 103, 'open'],
      [1, 101, 101, 'open'],
    ])
  }
})

test('S8 ids from before a restart that Kafka lacks get rows at the next start, once', () => {
  const trades = [...[100, 103, 106, 110].map((id) => trade(id)), ...[1, 2, 5].map((id) => trade(id, 1))]
  const named = (epoch: number, from: number, to: number, status: Gap['status']) =>
    row(from, to, status, { epoch, gap_id: gapId(SYMBOL, 'trade', epoch, from) })
  // All rows are read before the trades: those of the new ids before the old trades.
  const rows = [named(0, 107, 109, 'unrecoverable'), named(1, 3, 4, 'open'), named(1, 3, 4, 'unrecoverable')]
  const { pending, inStartRecord, openGaps } = startAfterRows(
    rows.map((gap) => ['newer', gap]),
    trades,
    { pending_gaps: [named(0, 101, 102, 'open')] },
  )
  const shown = ['epoch', 'from_id', 'to_id', 'reason'] as const
  assert.deepEqual(columns(inStartRecord, ...shown), [
    [0, 101, 102, null],
    [0, 104, 105, null],
  ])
  assert.deepEqual(columns(pending, ...shown), [
    [0, 101, 102, REASON_RESET],
    [0, 104, 105, REASON_RESET],
  ])
  assert.deepEqual(openGaps, [])
})

test('L6 a row that an older instance opens after the newer one closed it stays closed; its other ids get a row', () => {
  const { ranges, openGaps } = startAfterRows([
    ['newer', row(100, 151, 'open')],
    ['newer', row(100, 151, 'filled')],
    ['older', row(100, 156, 'open')],
  ])
  const rest = gapId(SYMBOL, 'trade', 0, 152)
  assert.deepEqual(ranges, [[rest, 1, 152, 156, 'open']])
  assert.deepEqual(column(openGaps, 'gap_id'), [rest])
})

test("L6 if two instances open a row with the same first id, the newer instance's row counts", () => {
  const { ranges, openGaps } = startAfterRows([
    ['older', row(100, 156, 'open')],
    ['newer', row(100, 151, 'open')],
    ['newer', row(152, 160, 'open')],
  ])
  assert.deepEqual(ranges, [[gapId(SYMBOL, 'trade', 0, 100), 2, 100, 151, 'open']])
  assert.deepEqual(openGaps.map(({ from_id, to_id }) => [from_id, to_id]).sort(), [
    [100, 151],
    [152, 160],
  ])
})

/** A quote in Kafka with a header; null for none. */
function quoteWith(u: number, header: string, text: string | null): FetchedMessage {
  const headers: Array<[Buffer, Buffer]> = text === null ? [] : [[Buffer.from(header), Buffer.from(text)]]
  const value = bookTickerValue({ u, ingestion_timestamp: NOW_MS + u })
  return new FetchedMessage(u, Buffer.from(SYMBOL), headers, value)
}

test('Q3 a start records the outage carried by a quote, unless it has read the row', () => {
  const outage = (from: number): Gap => ({
    ...row(0, 0, 'unrecoverable'),
    gap_id: gapId(SYMBOL, 'bookTicker', 0, from),
    event_type: 'bookTicker',
    from_id: null,
    to_id: null,
    from_time: from,
    to_time: from + 1000,
  })
  const fold = new RecoveryFold([SYMBOL], new Map(), assert.fail)
  const [known, unknown] = [outage(NOW_MS), outage(NOW_MS + 5000)]
  fold.gap('gaps', message(JSON.stringify(known)))
  fold.event('bookTicker', 'quotes', quoteWith(1, 'outage', JSON.stringify(known)))
  fold.event('bookTicker', 'quotes', quoteWith(2, 'outage', JSON.stringify(unknown)))
  assert.deepEqual(fold.memory.snapshot(SYMBOL).pending_gaps, [unknown])
})

test('P5 quotes read after the checkpoint have the clock carried by the first quote after a step', () => {
  const fold = new RecoveryFold([SYMBOL], new Map(), assert.fail)
  const clocks = [null, '7200025', null, '', null].map((ahead, u) => {
    fold.event('bookTicker', 'quotes', quoteWith(u, 'clock_ahead', ahead))
    return fold.memory.snapshot(SYMBOL).bookTicker?.clock_ahead
  })
  assert.deepEqual(clocks, [null, 7_200_025, 7_200_025, null, null])
})

test('K9 the first quote accepted after discarded ones carries their window, once', () => {
  const { ledger, rows: published } = ledgerAlone(NOW_MS)
  const discarded = new DiscardedEvents(new Continuity<StreamEvent>(ledger), ledger)
  const mark = (timeMs: number): EventMark => ({ ...trade(1), type: 'bookTicker', timeMs })
  for (const timeMs of [NOW_MS, NOW_MS + 700]) discarded.add(mark(timeMs), 'refused', 0)
  const route: Route = { ...mark(0), topic: 'b', partition: 0, key: Buffer.from(SYMBOL), headers: new Map() }
  const slice = { bytes: Buffer.from('{}'), start: 0, end: 2 }
  const kept = () => new EventMessage(route, slice, 2, 2, NOW_MS, NOW_MS, 0, undefined)
  const rows = [kept(), kept()].map((message) => {
    discarded.onKept(message)
    return headersNamed('outage', [...message.headers]).map((row) => JSON.parse(row.toString()))
  })
  assert.deepEqual(
    rows.map((all) => all.map(({ from_time, to_time, cause }) => [from_time, to_time, cause])),
    [[[NOW_MS, NOW_MS + 700, 'refused']], []],
  )
  // A checkpoint that contains the quote has to contain the row.
  assert.deepEqual(columns(published, 'from_time', 'to_time'), [[NOW_MS, NOW_MS + 700]])
})

test('L4 a gap that begins where a row without ids did is a later revision of that row', () => {
  const { ledger, rows: published } = ledgerAlone(NOW_MS)
  const own = ledger.open(TRADES, { from: 100, to: 199 }, 'restart', { fromMs: NOW_MS, toMs: NOW_MS })
  const older = row(150, 159, 'open', { revision: 4 })
  for (const one of asIdGap(older)) ledger.adopt(one)
  assert.deepEqual([published.at(-1)?.gap_id, published.at(-1)?.from_id], [older.gap_id, null])
  ledger.unrecoverable(own, { from: 150, to: 159 }, 'absent at exchange')
  const rows = published.filter(({ gap_id }) => gap_id === older.gap_id)
  assert.deepEqual(columns(rows, 'revision', 'from_id', 'status'), [
    [5, null, 'filled'],
    [6, 150, 'unrecoverable'],
  ])
  const next = ledgerAlone(NOW_MS)
  next.ledger.restore(rows.slice(0, 1))
  next.ledger.open(TRADES, { from: 150, to: 151 }, 'missed', { fromMs: NOW_MS, toMs: NOW_MS })
  assert.equal(next.rows.at(-1)?.revision, 6)
})

test('K9 abandons discarded trades of a past epoch at once, in one row', () => {
  const { ledger, rows: published } = ledgerAlone(NOW_MS)
  const continuity = new Continuity<StreamEvent>(ledger)
  const discarded = new DiscardedEvents(continuity, ledger)
  const observe = (id: number, timeMs: number) =>
    continuity.observe({ ...trade(id), stream: 'btcusdt@trade', timeMs, connection: 1, receiptMs: timeMs })
  for (const id of [100, 104, 105, 106]) observe(id, NOW_MS + id)
  for (const id of [1, 2, 3]) observe(id, NOW_MS + 1000 + id)
  assert.equal(continuity.epochOf('btcusdt@trade'), 1)
  for (const id of [102, 105, 106]) discarded.add(trade(id), 'refused', 0)
  discarded.enter(0, true)
  const rows = tableOf(published).filter(({ epoch, from_id }) => epoch === 0 && from_id !== null)
  assert.deepEqual(columns(rows, 'from_id', 'to_id', 'status'), [
    [101, 103, 'unrecoverable'],
    [105, 106, 'unrecoverable'],
  ])
})

test('L5 a start after a reopen request finds the ids that have not been seen since, wherever its checkpoint was taken', () => {
  const request = row(100, 109, 'open', { revision: 3, gap_id: 'asked' })
  const taken = { ...request, revision: 4 }
  const closed = { ...taken, revision: 5, status: 'filled' as const }
  const trades = (from: number, to: number) => ids(from, to).map((id) => trade(id))
  const facts: Fact[] = [...trades(99, 120), request, taken, ...trades(100, 104), trade(121)]
  for (const [all, expected] of [
    [facts, [[105, 109]]],
    [[...facts, ...trades(105, 109), closed], []],
  ] as const) {
    const asked = all.findIndex((fact) => 'gap_id' in fact)
    // Events before the request may fill it: they are read after it, and are still to be stored.
    for (const cut of ids(asked, all.length)) {
      const after = started(memoryOf(...all.slice(0, cut)), all.slice(cut))
      assert.deepEqual(holes(after), expected, `cut ${cut}`)
      assert.equal(after.snapshot(SYMBOL).open_gaps.length, expected.length, `cut ${cut}`)
    }
  }
})

test('L5 a request for ids below all known ones implies nothing about the ids in between', () => {
  const memory = memoryOf(row(100, 109, 'open', { revision: 2 }), row(100, 109, 'open', { revision: 3 }))
  for (const one of [memory, started(memory)]) {
    assert.deepEqual(holes(one), [[100, 109]])
    one.event(trade(5000))
    assert.deepEqual(holes(one), [[100, 109]])
    one.event(trade(100))
    assert.deepEqual(holes(one), [[101, 109]])
    one.event(trade(5001))
    assert.deepEqual(holes(one), [[101, 109]])
  }
  const other = memoryOf(trade(5000, 1))
  for (const epoch of [0, 2]) other.gap(row(100, 109, 'open', { revision: 2, epoch }))
  assert.deepEqual(holes(other), [], 'ids of another epoch are different ids')
})

test('L5 a request is adopted with the next revision, and no id is in two rows', () => {
  const { ledger, rows: published } = ledgerAlone(NOW_MS)
  const open = (from: number, to: number) =>
    ledger.open(TRADES, { from, to }, 'missed', { fromMs: null, toMs: null })
  const request = (from: number, to: number, id: string, revision: number) => {
    for (const gap of asIdGap(row(from, to, 'open', { gap_id: id, revision }))) ledger.takeOver(gap)
  }
  const inner = open(120, 129)
  request(100, 149, 'wide', 7)
  request(121, 122, 'within', 7)
  const closed = open(200, 209)
  ledger.filled(closed)
  request(200, 209, closed.gap_id, 2)
  ledger.filled(closed)
  request(200, 209, closed.gap_id, 2)
  ledger.filled(closed)
  request(120, 139, inner.gap_id, 9)
  // Taken before the row was reopened.
  ledger.filled(inner)
  const rows = tableOf(published)
  assert.deepEqual(
    rows
      .map(({ gap_id, from_id, to_id, status, revision }) => [gap_id, from_id, to_id, status, revision])
      .sort((one, other) => Number(one[1]) - Number(other[1])),
    [
      ['within', null, null, 'filled', 8],
      ['wide', 100, 119, 'open', 8],
      [inner.gap_id, 120, 129, 'filled', 11],
      [`${SYMBOL}/trade/0/130`, 130, 149, 'open', 8],
      [closed.gap_id, 200, 209, 'filled', 6],
    ],
  )
  for (const gap of rows) assert.deepEqual(GAP.parse(gap), gap)
})

test('L a gap after a ledger row without any event has no start time, and its checkpoint can be read', () => {
  const { ledger, rows } = ledgerAlone(NOW_MS)
  ledger.open(TRADES, { from: 105, to: 199 }, 'missed', { fromMs: 0, toMs: NOW_MS })
  ledger.reset({ ...TRADES, epoch: 1 }, 0, NOW_MS)
  for (const gap of rows) assert.deepEqual(GAP.parse(gap), gap)
  assert.deepEqual(column(rows, 'from_time'), [null, NOW_MS])
})

test('L7 a gap that an import has closed stays closed, now and after a start, and its trades are not requested', () => {
  const { ledger, rows: published } = ledgerAlone(NOW_MS)
  const gap = ledger.open(TRADES, { from: 101, to: 104 }, 'missed', { fromMs: NOW_MS, toMs: NOW_MS })
  ledger.unrecoverable(gap, { from: 101, to: 104 }, 'absent at exchange')
  const before = published.length
  const filled = { ...row(101, 104, 'filled', { revision: 4 }), gap_id: gap.gap_id }
  for (const one of asIdGap(filled)) ledger.imported(one)
  assert.equal(published.length, before, 'nothing is published over it')
  // Ids that go missing again get a later revision.
  ledger.open(TRADES, { from: 101, to: 101 }, 'truncation', { fromMs: NOW_MS, toMs: NOW_MS })
  assert.equal(published.at(-1)?.revision, 5)
  for (const one of asIdGap({ ...filled, revision: 6 })) ledger.imported(one)
  assert.deepEqual(
    [published.at(-1)?.revision, published.at(-1)?.status],
    [7, 'open'],
    'a reopened gap stays open',
  )
})

test('L7 imported trades fill holes at a start, and ids of days before the recording open none', () => {
  const fold = new RecoveryFold([SYMBOL], new Map(), assert.fail)
  const imported = (t: number) => {
    const value = tradeValue({ t, E: undefined, source: 'archive' })
    fold.event('trades', 'trades', record(value, Buffer.from(SYMBOL)))
  }
  imported(5)
  assert.equal(fold.memory.snapshot(SYMBOL).trade, null, 'they do not begin a sequence')
  for (const t of [100, 105]) fold.event('trades', 'trades', record(tradeValue({ t }), Buffer.from(SYMBOL)))
  imported(102)
  imported(7)
  assert.deepEqual(holes(fold.memory), [
    [101, 101],
    [103, 104],
  ])
  imported(110)
  assert.deepEqual(holes(fold.memory).at(-1), [106, 109], 'ids after the last are expected')
})
