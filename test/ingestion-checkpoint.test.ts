import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { FetchedMessage } from '../src/foundation/kafka/codec/fetched-message.ts'
import { GAP, type Gap, gapId } from '../src/foundation/market/gap.ts'
import { AcknowledgedState } from '../src/ingestion/checkpoint/acknowledged-state.ts'
import { checkpointText, emptyCheckpoint, parseCheckpoint } from '../src/ingestion/checkpoint/checkpoint.ts'
import { RecoveryFold } from '../src/ingestion/checkpoint/recovery-fold.ts'
import { GapLedger } from '../src/ingestion/continuity/gap-ledger.ts'
import type { EventMark } from '../src/ingestion/messages/outgoing-message.ts'

const SYMBOL = 'BTCUSDT'
const NOW_MS = Date.UTC(2026, 0, 1)

function trade(id: number, epoch = 0): EventMark {
  return { symbol: SYMBOL, type: 'trade', epoch, id, timeMs: NOW_MS + id }
}

function row(from: number, to: number, status: Gap['status'], more: Partial<Gap> = {}): Gap {
  const { epoch = 0 } = more
  return {
    gap_id: gapId(SYMBOL, 'trade', epoch, from),
    revision: status === 'open' ? 1 : 2,
    symbol: SYMBOL,
    event_type: 'trade',
    epoch,
    from_id: from,
    to_id: to,
    from_time: null,
    to_time: null,
    cause: 'missed',
    status,
    reason: null,
    detected_at: NOW_MS,
    updated_at: NOW_MS,
    closed_at: status === 'open' ? null : NOW_MS,
    ...more,
  }
}

function holes(memory: AcknowledgedState): Array<[number, number]> {
  return (memory.snapshot(SYMBOL).trade?.holes ?? []).map(({ from, to }) => [from, to])
}

test('C1 knows the ids that only the ledger speaks of: asked for over REST, and not yet forwarded', () => {
  const memory = new AcknowledgedState()
  memory.event(trade(100))
  memory.gap(row(101, 104, 'open'))
  assert.deepEqual(holes(memory), [[101, 104]])
  assert.equal(memory.snapshot(SYMBOL).trade?.last, 104)
  memory.event(trade(102))
  assert.deepEqual(holes(memory), [
    [101, 101],
    [103, 104],
  ])
})

test('C1 does not look again for ids that were given up, also behind the last that was forwarded', () => {
  const memory = new AcknowledgedState()
  memory.event(trade(100))
  memory.gap(row(101, 104, 'open'))
  memory.gap(row(101, 104, 'unrecoverable'))
  assert.deepEqual(holes(memory), [])
  assert.deepEqual(memory.snapshot(SYMBOL).open_gaps, [])
  memory.event(trade(200))
  assert.deepEqual(holes(memory), [[105, 199]])
})

test('C2 keeps the newest revision of each row, whatever order they are read in', () => {
  const memory = new AcknowledgedState()
  memory.gap(row(101, 104, 'open', { revision: 3 }))
  memory.gap(row(101, 200, 'open', { revision: 2 }))
  assert.deepEqual(
    memory.snapshot(SYMBOL).open_gaps.map(({ revision, to_id }) => [revision, to_id]),
    [[3, 104]],
  )
})

test('C2 a row of ids that begin anew counts also where it is read behind their first events', () => {
  const memory = new AcknowledgedState()
  memory.event(trade(5000))
  memory.event(trade(675, 1))
  memory.event(trade(676, 1))
  memory.gap(row(0, 674, 'open', { epoch: 1 }))
  memory.gap(row(4000, 4001, 'open'))
  assert.deepEqual(holes(memory), [[0, 674]], 'and one of the ids before, which are over, does not')
})

test('L2 of two windows of the same start the longer one stands, whoever wrote it', () => {
  const rows: Gap[] = []
  const ledger = () =>
    new GapLedger(
      (gap) => rows.push(gap),
      () => {},
      () => NOW_MS,
    )
  ledger().outage(SYMBOL, NOW_MS, NOW_MS + 700, 'reconnect')
  ledger().outage(SYMBOL, NOW_MS, NOW_MS + 60_000, 'restart')
  ledger().outage(SYMBOL, NOW_MS, NOW_MS - 5, 'reconnect')
  const [short, long, back] = rows
  assert.ok(short !== undefined && long !== undefined && back !== undefined)
  assert.deepEqual([short.gap_id, back.gap_id], [long.gap_id, long.gap_id])
  assert.ok(short.revision < long.revision && back.revision < short.revision)
  assert.equal(back.to_time, NOW_MS, 'also where the clock was set back')
})

/** Events and rows as ingestion lets them go: a row of what was jumped over before the event behind it. */
const history = fc
  .array(fc.record({ jump: fc.nat({ max: 4 }), fill: fc.boolean(), lose: fc.boolean() }), { maxLength: 40 })
  .map((steps) => {
    const facts: Array<{ event: EventMark } | { gap: Gap }> = [{ event: trade(1000) }]
    let id = 1000
    for (const { jump, fill, lose } of steps) {
      const from = id + 1
      id += jump + 1
      if (jump > 0) {
        facts.push({ gap: row(from, id - 1, 'open') })
        if (fill) for (let one = from; one < id; one++) facts.push({ event: trade(one) })
        if (fill) facts.push({ gap: row(from, id - 1, 'filled') })
        else if (lose) facts.push({ gap: row(from, id - 1, 'unrecoverable') })
      }
      facts.push({ event: trade(id) })
    }
    return facts
  })

function learn(memory: AcknowledgedState, facts: ReadonlyArray<{ event: EventMark } | { gap: Gap }>): void {
  for (const fact of facts) {
    if ('event' in fact) memory.event(fact.event)
    else memory.gap(fact.gap)
  }
}

test('C2 a start knows the same as the instance that ended, wherever its checkpoint was taken', () => {
  fc.assert(
    fc.property(history, fc.nat({ max: 100 }), (facts, at) => {
      const whole = new AcknowledgedState()
      learn(whole, facts)
      const cut = Math.min(at, facts.length)
      const before = new AcknowledgedState()
      learn(before, facts.slice(0, cut))
      const checkpoint = parseCheckpoint(
        checkpointText({
          version: 1,
          kind: 'running',
          instance: 'i',
          counter: 1,
          written_at: NOW_MS,
          offsets: {},
          ...before.snapshot(SYMBOL),
        }),
      )
      const after = new AcknowledgedState()
      after.restore(SYMBOL, checkpoint)
      // The topics are read one after the other: all events, then all rows.
      const behind = facts.slice(cut)
      learn(after, [...behind.filter((fact) => 'event' in fact), ...behind.filter((fact) => 'gap' in fact)])
      assert.deepEqual(after.snapshot(SYMBOL), whole.snapshot(SYMBOL))
    }),
  )
})

/** A checkpoint of {@link SYMBOL} whose memory ends at this trade. */
function checkpointAt(lastId: number, counter: number, writtenAtMs: number): FetchedMessage {
  const memory = new AcknowledgedState()
  memory.event(trade(lastId))
  const checkpoint = {
    ...emptyCheckpoint('one'),
    ...memory.snapshot(SYMBOL),
    counter,
    written_at: writtenAtMs,
  }
  return message(checkpointText(checkpoint))
}

function message(text: string): FetchedMessage {
  return new FetchedMessage(0, Buffer.from(SYMBOL), [], Buffer.from(text))
}

test('C1 the checkpoint with the highest counter counts, whatever the clock said when it was written', () => {
  const fold = new RecoveryFold([SYMBOL], () => 1, assert.fail)
  fold.checkpoint(checkpointAt(200, 8, NOW_MS - 50 * 60_000))
  // It stands in another partition, from before the clock was set back.
  fold.checkpoint(checkpointAt(100, 7, NOW_MS))
  assert.equal(fold.memory.snapshot(SYMBOL).trade?.last, 200)
  assert.equal(fold.counters.get(SYMBOL), 8)
})

test('C1 a checkpoint that cannot be read is reported and skipped: the one before it counts, or the topics are read from their beginning', () => {
  const unreadable: string[] = []
  const fold = new RecoveryFold(
    [SYMBOL],
    () => 1,
    (symbol) => unreadable.push(symbol),
  )
  fold.checkpoint(message('{"version":1,"kind":"running"'))
  assert.equal(fold.offset('trades', 0), 0)
  fold.checkpoint(checkpointAt(100, 3, NOW_MS))
  fold.checkpoint(message('{}'))
  assert.equal(fold.memory.snapshot(SYMBOL).trade?.last, 100)
  assert.deepEqual(unreadable, [SYMBOL, SYMBOL])
})

test('L a gap after a ledger row without any event has no start time, and its checkpoint can be read', () => {
  const rows: Gap[] = []
  const ledger = new GapLedger(
    (gap) => rows.push(gap),
    () => {},
    () => NOW_MS,
  )
  ledger.open({ symbol: SYMBOL, eventType: 'trade', epoch: 0 }, { from: 105, to: 199 }, 'missed', {
    fromMs: 0,
    toMs: NOW_MS,
  })
  ledger.reset({ symbol: SYMBOL, eventType: 'trade', epoch: 1 }, 5, 0, NOW_MS)
  for (const gap of rows) assert.deepEqual(GAP.parse(gap), gap)
  assert.deepEqual(
    rows.map(({ from_time }) => from_time),
    [null, NOW_MS],
  )
})
