import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pino } from 'pino'
import type { FetchTrades, RestOutcome, RestTrade } from '../src/binance/trade-rest.ts'
import { WeightBudget } from '../src/binance/weight-budget.ts'
import { Backfill } from '../src/ingestion/backfill.ts'
import { GapLedger, type IdGap } from '../src/ingestion/gap-ledger.ts'
import { Sequence } from '../src/ingestion/sequence.ts'
import type { Gap } from '../src/market/gap.ts'
import { settle, VirtualClock } from './support/virtual-clock.ts'

const row = (id: number): RestTrade => ({
  id,
  price: '1',
  quantity: '1',
  timeMs: 1,
  isBuyerMaker: true,
  isBestMatch: true,
  trades: null,
})
const rows = (from: number, to: number): RestOutcome => ({
  kind: 'rows',
  rows: Array.from({ length: Math.max(0, to - from + 1) }, (_, i) => row(from + i)),
  usedWeight: 0,
})

/** Backfill over a sequence that has seen 1 and `last`, so that 2..last−1 are missing. */
function scene(
  last: number,
  answer: (fromId: number, call: number, limit: number) => RestOutcome,
  options: { maxIds?: number; weight?: number } = {},
) {
  const clock = new VirtualClock()
  const published: Gap[] = []
  const forwarded: number[] = []
  const calls: Array<{ atMs: number; fromId: number }> = []
  let acknowledge = () => {}
  let acknowledged = Promise.resolve()
  const sequence = new Sequence()
  sequence.observe({ id: 1, timeMs: 1, connection: 0 })
  sequence.observe({ id: last, timeMs: last, connection: 0 })
  const ledger = new GapLedger(
    (gap) => published.push(gap),
    (_gap, lost) => sequence.fill(lost),
    () => Math.floor(clock.wallMicros() / 1000),
  )
  const fetch: FetchTrades = async ({ fromId, limit }) => {
    calls.push({ atMs: clock.monotonicMs(), fromId: fromId ?? 0 })
    return answer(fromId ?? 0, calls.length, limit)
  }
  const backfill = new Backfill(
    {
      fetch,
      budget: new WeightBudget(options.weight ?? 6000),
      clock,
      random: () => 0.5,
      backoff: { initialMs: 1000, maxMs: 60_000 },
      maxIds: options.maxIds ?? 1_000_000,
    },
    {
      missingIn: (gap: IdGap) => sequence.holesIn({ from: gap.from_id, to: gap.to_id }),
      forward: (_gap, trades) => {
        for (const { id } of trades) {
          forwarded.push(id)
          sequence.fill({ from: id, to: id })
        }
      },
      acknowledged: () => acknowledged,
      whenRoom: async () => {},
    },
    ledger,
    pino({ level: 'silent' }),
  )
  ledger.open({ symbol: 'BTCUSDT', eventType: 'trade', epoch: 0 }, { from: 2, to: last - 1 }, 'reconnect', {
    fromMs: 1,
    toMs: last,
  })
  backfill.start()
  return {
    clock,
    published,
    forwarded,
    calls,
    ledger,
    backfill,
    holdAcknowledgements() {
      acknowledged = new Promise((resolve) => {
        acknowledge = resolve
      })
    },
    acknowledge: () => acknowledge(),
    states: () =>
      published.map(({ from_id, to_id, status, reason }) => [
        from_id,
        to_id,
        status,
        ...(reason === null ? [] : [reason]),
      ]),
  }
}

test('B1 fills a gap in order, in pages, and says so only after every message is acknowledged', async () => {
  const { clock, forwarded, states, backfill, holdAcknowledgements, acknowledge } = scene(
    2503,
    (from, _call, limit) => rows(from, from + limit - 1),
  )
  holdAcknowledgements()
  await clock.advance(1000)
  assert.deepEqual(
    forwarded,
    Array.from({ length: 2501 }, (_, i) => i + 2),
  )
  assert.deepEqual(states(), [[2, 2502, 'open']])
  acknowledge()
  await settle()
  assert.deepEqual(states(), [
    [2, 2502, 'open'],
    [2, 2502, 'filled'],
  ])
  await backfill.stop()
})

test('B2 waits for a database that lags, and gives up on ids that never come', async () => {
  const { clock, forwarded, states, backfill } = scene(10, (from) => rows(from, 5))
  await clock.advance(4 * 60_000)
  assert.deepEqual(forwarded, [2, 3, 4, 5])
  assert.deepEqual(states(), [[2, 9, 'open']])
  await clock.advance(4 * 60_000)
  assert.deepEqual(states().slice(1), [
    [2, 5, 'filled'],
    [6, 9, 'unrecoverable', 'absent at exchange'],
  ])
  await backfill.stop()
})

test('B3 takes an interior hole for absent only after several equal answers, and fills what lies around it', async () => {
  const { clock, forwarded, states, backfill, calls } = scene(10, (from) =>
    from < 5 ? rows(from, 4) : from > 6 ? rows(from, 9) : rows(7, 9),
  )
  await clock.advance(60_000)
  assert.deepEqual(forwarded, [2, 3, 4, 7, 8, 9])
  assert.equal(calls.filter(({ fromId }) => fromId === 5).length, 3)
  assert.deepEqual(states(), [
    [2, 9, 'open'],
    [2, 4, 'filled'],
    [5, 6, 'unrecoverable', 'absent at exchange'],
    [7, 9, 'open'],
    [7, 9, 'filled'],
  ])
  await backfill.stop()
})

test('B4 notices an old id that the exchange has moved forward without a word', async () => {
  const { clock, states, forwarded, backfill } = scene(10, () => rows(500, 1499))
  await clock.advance(60_000)
  assert.deepEqual(forwarded, [], 'ids of after the gap are none of the gap')
  assert.deepEqual(states().at(-1), [2, 9, 'unrecoverable', 'absent at exchange'])
  await backfill.stop()
})

test('B5 asks for nothing while told to wait, and never before its time', async () => {
  const { clock, calls, states, backfill } = scene(10, (from, call) =>
    call === 1 ? { kind: 'wait', waitMs: 90_000, status: 429 } : rows(from, 9),
  )
  await clock.advance(89_000)
  assert.equal(calls.length, 1)
  await clock.advance(2000)
  assert.equal(calls.length, 2)
  assert.deepEqual(states().at(-1), [2, 9, 'filled'])
  await backfill.stop()
})

test('B6 stays within its weight a minute', async () => {
  const { clock, calls, backfill } = scene(20_002, (from, _call, limit) => rows(from, from + limit - 1), {
    weight: 100,
  })
  await clock.advance(5 * 60_000)
  assert.equal(calls.length, 20)
  for (const { atMs } of calls)
    assert.ok(calls.filter((call) => call.atMs >= atMs && call.atMs < atMs + 60_000).length <= 4)
  await backfill.stop()
})

test('B7 tries again after a failure, and stops asking where the region is refused', async () => {
  const failing = scene(10, (from, call) =>
    call < 3 ? { kind: 'failed', reason: 'HTTP 500' } : rows(from, 9),
  )
  await failing.clock.advance(10_000)
  assert.equal(failing.calls.length, 3)
  assert.deepEqual(failing.states().at(-1), [2, 9, 'filled'])
  await failing.backfill.stop()
  const refused = scene(10, () => ({ kind: 'refused' }))
  await refused.clock.advance(600_000)
  assert.equal(refused.calls.length, 1)
  assert.deepEqual(refused.states().at(-1), [2, 9, 'unrecoverable', 'the exchange refuses this region'])
  await refused.backfill.stop()
})

test('B8 leaves a gap that is too large, and says so', async () => {
  const { clock, calls, states, backfill } = scene(1000, (from) => rows(from, from), { maxIds: 500 })
  await clock.advance(1000)
  assert.equal(calls.length, 0)
  assert.deepEqual(states().at(-1), [2, 999, 'unrecoverable', 'too large'])
  await backfill.stop()
})

test('L1–L3 raises the revision with every change of a gap and gives what is split off an id of its own', () => {
  const published: Gap[] = []
  const ledger = new GapLedger(
    (gap) => published.push(gap),
    () => {},
    () => 1,
  )
  const gap = ledger.open(
    { symbol: 'BTCUSDT', eventType: 'trade', epoch: 0 },
    { from: 10, to: 20 },
    'missed',
    { fromMs: null, toMs: null },
  )
  ledger.unrecoverable(gap, { from: 13, to: 14 }, 'absent at exchange')
  assert.deepEqual(
    published.map(({ gap_id, revision, from_id, to_id, status }) => [
      gap_id,
      revision,
      from_id,
      to_id,
      status,
    ]),
    [
      ['BTCUSDT/trade/0/10', 1, 10, 20, 'open'],
      ['BTCUSDT/trade/0/10', 2, 10, 12, 'filled'],
      ['BTCUSDT/trade/0/13', 1, 13, 14, 'unrecoverable'],
      ['BTCUSDT/trade/0/15', 1, 15, 20, 'open'],
    ],
  )
  assert.deepEqual(
    ledger.openGaps.map(({ gap_id }) => gap_id),
    ['BTCUSDT/trade/0/15'],
  )
})
