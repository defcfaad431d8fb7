import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pino } from 'pino'
import type { FetchTrades, RestOutcome, RestTrade } from '../src/foundation/binance/trade-rest.ts'
import { WeightBudget } from '../src/foundation/binance/weight-budget.ts'
import type { Gap } from '../src/foundation/market/gap.ts'
import { Backfill } from '../src/ingestion/backfill/backfill.ts'
import { BackfillSchedule } from '../src/ingestion/backfill/backfill-schedule.ts'
import { GapLedger } from '../src/ingestion/continuity/gap-ledger.ts'
import { type IdGap, isTradeGap } from '../src/ingestion/continuity/gap-rows.ts'
import { Sequence } from '../src/ingestion/continuity/sequence.ts'
import { column, columns } from './support/columns.ts'
import { ledgerAlone } from './support/ledger-alone.ts'
import { restCaller, restRefused, restRows } from './support/rest-answers.ts'
import { settle, VirtualClock } from './support/virtual-clock.ts'

const TRADES = { symbol: 'BTCUSDT', event_type: 'trade', epoch: 0 } as const

/** Backfill over a sequence that has seen 1 and `last`, so that 2..last−1 are missing. */
function scene(
  last: number,
  answer: (fromId: number, call: number, limit: number) => RestOutcome | Promise<RestOutcome>,
  options: { maxIds?: number; weight?: number } = {},
) {
  const clock = new VirtualClock()
  const published: Gap[] = []
  const forwarded: number[] = []
  const calls: Array<{ atMs: number; fromId: number }> = []
  const seconds: RestTrade[] = []
  let acknowledge = () => {}
  let acknowledged = Promise.resolve()
  const sequence = new Sequence()
  sequence.observe({ firstId: 1, id: 1, timeMs: 1, connection: 0 })
  sequence.observe({ firstId: last, id: last, timeMs: last, connection: 0 })
  const ledger = new GapLedger(
    (gap) => published.push(gap),
    () => Math.floor(clock.wallMicros() / 1000),
    clock,
  )
  const fetch: FetchTrades = async ({ fromId, limit }) => {
    calls.push({ atMs: clock.monotonicMs(), fromId: fromId ?? 0 })
    return answer(fromId ?? 0, calls.length, limit)
  }
  const warnings: unknown[] = []
  const log = pino({ level: 'warn' }, { write: (line: string) => warnings.push(JSON.parse(line)) })
  const backfill = new Backfill(
    {
      rest: restCaller(fetch, new WeightBudget(options.weight ?? 6000), clock, log),
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
      abandoned: (_gap, lost) => sequence.fill(lost),
      keepSecond: (_gap, trade) => seconds.push(trade),
      isHeld: () => false,
      settled: () => acknowledged,
      whenRoom: async () => {},
    },
    ledger,
    log,
  )
  const gap = ledger.open(TRADES, { from: 2, to: last - 1 }, 'reconnect', { fromMs: 1, toMs: last })
  backfill.start()
  return {
    clock,
    published,
    forwarded,
    seconds,
    calls,
    warnings,
    problem: () => backfill.status()[0],
    ledger,
    sequence,
    gap,
    backfill,
    holdAcknowledgements() {
      acknowledged = new Promise((resolve) => {
        acknowledge = resolve
      })
    },
    acknowledge: () => acknowledge(),
    states: () =>
      published.map(({ from_id, to_id, status, reason }) =>
        [from_id, to_id, status, reason].filter((value) => value !== null),
      ),
  }
}

test('B1 fills a gap in order, in pages, and closes it only after every message is acknowledged', async () => {
  const { clock, forwarded, states, holdAcknowledgements, acknowledge } = scene(2503, (from, _call, limit) =>
    restRows(from, from + limit - 1),
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
})

test('S10 keeps the second of two trades under one id, but no duplicate', async () => {
  const page = restRows(2, 9)
  assert.ok(page.kind === 'rows')
  const [two, three, ...rest] = page.rows
  assert.ok(two !== undefined && three !== undefined)
  const second = { ...three, quantity: '77' }
  // The last id is after the gap.
  const all = [two, three, three, second, ...rest, { ...three, id: 9, quantity: '78' }]
  const { clock, forwarded, seconds } = scene(8, () => ({ ...page, rows: all }))
  await clock.advance(1000)
  assert.deepEqual(forwarded, [2, 3, 4, 5, 6, 7])
  assert.deepEqual(seconds, [second])
})

test('S10 keeps the second of two trades under the last id of a gap', async () => {
  const page = restRows(2, 2)
  assert.ok(page.kind === 'rows')
  const [two] = page.rows
  assert.ok(two !== undefined)
  const second = { ...two, quantity: '77' }
  const { clock, forwarded, seconds } = scene(3, (_from, _call, limit) => ({
    ...page,
    rows: [two, second].slice(0, limit),
  }))
  await clock.advance(1000)
  assert.deepEqual([forwarded, seconds], [[2], [second]])
})

test('B2 waits for a lagging database, and abandons ids that never appear', async () => {
  const { clock, forwarded, states } = scene(10, (from) => restRows(from, 5))
  await clock.advance(4 * 60_000)
  assert.deepEqual(forwarded, [2, 3, 4, 5])
  assert.deepEqual(states(), [[2, 9, 'open']])
  await clock.advance(4 * 60_000)
  assert.deepEqual(states().slice(1), [
    [2, 5, 'filled'],
    [6, 9, 'unrecoverable', 'absent at exchange'],
  ])
})

test('B3 treats an interior hole as absent only after several equal answers, and fills the ids around it', async () => {
  const { clock, forwarded, states, calls } = scene(10, (from) =>
    from < 5 ? restRows(from, 4) : from > 6 ? restRows(from, 9) : restRows(7, 9),
  )
  await clock.advance(119_000)
  assert.deepEqual(forwarded, [2, 3, 4], 'nothing is abandoned before two minutes')
  assert.deepEqual(states(), [[2, 9, 'open']])
  await clock.advance(61_000)
  assert.deepEqual(forwarded, [2, 3, 4, 7, 8, 9])
  const times = calls.filter(({ fromId }) => fromId === 5).map(({ atMs }) => atMs)
  assert.ok(times.length >= 3 && Number(times.at(-1)) - Number(times[0]) >= 120_000, `requested at ${times}`)
  assert.deepEqual(states(), [
    [2, 9, 'open'],
    [2, 4, 'filled'],
    [5, 6, 'unrecoverable', 'absent at exchange'],
    [7, 9, 'open'],
    [7, 9, 'filled'],
  ])
})

test('B4 detects an old id that the exchange silently replaced with a later one', async () => {
  const { clock, states, forwarded } = scene(10, () => restRows(500, 1499))
  await clock.advance(180_000)
  assert.deepEqual(forwarded, [], 'ids after the gap are not part of it')
  assert.deepEqual(states().at(-1), [2, 9, 'unrecoverable', 'absent at exchange'])
})

test('B5 sends no request during a required wait, and none before its time', async () => {
  const { clock, calls, states } = scene(10, (from, call) =>
    call === 1 ? restRefused(429, 90) : restRows(from, 9),
  )
  await clock.advance(89_000)
  assert.equal(calls.length, 1)
  await clock.advance(2000)
  assert.equal(calls.length, 2)
  assert.deepEqual(states().at(-1), [2, 9, 'filled'])
})

test('B6 stays within its weight per minute', async () => {
  const { clock, calls } = scene(20_002, (from, _call, limit) => restRows(from, from + limit - 1), {
    weight: 100,
  })
  await clock.advance(5 * 60_000)
  assert.equal(calls.length, 20)
  for (const { atMs } of calls)
    assert.ok(calls.filter((call) => call.atMs >= atMs && call.atMs < atMs + 60_000).length <= 4)
})

test('B7 retries after a failure, for a day if the region is refused, with at most ten minutes in between', async () => {
  const failing = scene(10, (from, call) =>
    call < 3 ? { kind: 'failed', reason: 'HTTP 500' } : restRows(from, 9),
  )
  await failing.clock.advance(10_000)
  assert.equal(failing.calls.length, 3)
  assert.deepEqual(failing.states().at(-1), [2, 9, 'filled'])
  let isServed = false
  const region = scene(10, (from) => (isServed ? restRows(from, 9) : restRefused(451)))
  await region.clock.advance(24 * 3_600_000)
  assert.ok(region.calls.length > 100 && region.calls.length < 250, `${region.calls.length} requests`)
  assert.deepEqual(region.states(), [[2, 9, 'open']])
  isServed = true
  await region.clock.advance(601_000)
  assert.deepEqual(region.states().at(-1), [2, 9, 'filled'])
})

test('B8 does not fill an oversized gap, and records the reason', async () => {
  const { clock, calls, states } = scene(1000, (from) => restRows(from, from), { maxIds: 500 })
  await clock.advance(1000)
  assert.equal(calls.length, 0)
  assert.deepEqual(states().at(-1), [2, 999, 'unrecoverable', 'too large'])
})

test('B2 does not take failures and waits as absence of ids missing once', async () => {
  const { clock, states } = scene(10, (from, call) => {
    if (call === 1) return restRows(from, from - 1)
    if (call < 12) return { kind: 'failed', reason: 'HTTP 500' }
    if (call === 12) return restRefused(403, 300)
    return call < 15 ? restRows(from, from - 1) : restRows(from, 9)
  })
  await clock.advance(3_600_000)
  assert.deepEqual(states(), [
    [2, 9, 'open'],
    [2, 9, 'filled'],
  ])
})

test('B2 does not take two empty answers as absence when the weight of five minutes was used in between', async () => {
  const { clock, states, calls } = scene(10, (from, call) => {
    if (call < 3) return { ...restRows(from, from - 1), usedWeight: call === 2 ? 5999 : 0 }
    if (call < 9) return restRefused(429, 60)
    return call < 11 ? restRows(from, from - 1) : restRows(from, 9)
  })
  await clock.advance(3_600_000)
  assert.equal(calls.length, 11)
  assert.deepEqual(states().at(-1), [2, 9, 'filled'])
})

test('B3 restarts its count when the exchange jumps elsewhere', async () => {
  const { clock, states } = scene(10, (from, call) =>
    call % 2 === 0 ? restRows(6, 9) : restRows(7, 9 + from),
  )
  await clock.advance(1_800_000)
  assert.deepEqual(states(), [[2, 9, 'open']])
})

test('B9 leaves a gap closed that was closed while a request was pending', async () => {
  const answer = Promise.withResolvers<RestOutcome>()
  const { clock, forwarded, states, gap, ledger, calls } = scene(10, () => answer.promise)
  await clock.advance(10)
  ledger.unrecoverable(gap, { from: 2, to: 9 }, 'the exchange restarted its ids')
  answer.resolve(restRows(2, 9))
  await clock.advance(600_000)
  assert.equal(calls.length, 1)
  assert.deepEqual(forwarded, [])
  assert.deepEqual(states().slice(1), [[2, 9, 'unrecoverable', 'the exchange restarted its ids']])
})

test('B9 leaves a gap closed that was closed while Kafka was acknowledging', async () => {
  const { clock, states, gap, ledger, holdAcknowledgements, acknowledge } = scene(10, (from) =>
    restRows(from, 9),
  )
  holdAcknowledgements()
  await clock.advance(1000)
  ledger.unrecoverable(gap, { from: 2, to: 9 }, 'the exchange restarted its ids')
  acknowledge()
  await clock.advance(1000)
  assert.deepEqual(states().slice(1), [[2, 9, 'unrecoverable', 'the exchange restarted its ids']])
})

test('B9 does not send a trade again that arrived late while a request was pending', async () => {
  const answer = Promise.withResolvers<RestOutcome>()
  const { clock, forwarded, states, sequence, backfill } = scene(10, () => answer.promise)
  await clock.advance(10)
  for (const id of [2, 5, 6]) sequence.observe({ firstId: id, id, timeMs: id, connection: 0 })
  answer.resolve(restRows(2, 9))
  await clock.advance(10)
  assert.deepEqual(forwarded, [3, 4, 7, 8, 9])
  assert.equal(backfill.backfilled, 5)
  assert.deepEqual(states().at(-1), [2, 9, 'filled'])
})

test('B9 does not report an id as lost that arrived while Kafka was acknowledging', async () => {
  const { clock, states, sequence, holdAcknowledgements, acknowledge } = scene(10, () => restRows(10, 20))
  holdAcknowledgements()
  await clock.advance(150_000)
  sequence.observe({ firstId: 4, id: 4, timeMs: 4, connection: 0 })
  acknowledge()
  await clock.advance(600_000)
  assert.deepEqual(states().slice(1), [
    [2, 3, 'unrecoverable', 'absent at exchange'],
    [4, 9, 'open'],
    [4, 4, 'filled'],
    [5, 9, 'unrecoverable', 'absent at exchange'],
  ])
})

test("B7 abandons ids rejected for two minutes with the exchange's message, and stops requesting them", async () => {
  const reason = 'delisted: HTTP 400: Invalid symbol. (-1121)'
  const { clock, states, calls } = scene(10, () =>
    restRefused(400, null, '{"code":-1121,"msg":"Invalid symbol."}'),
  )
  await clock.advance(119_000)
  assert.deepEqual(states(), [[2, 9, 'open']])
  await clock.advance(3_600_000)
  assert.ok(calls.length < 12, `${calls.length} requests`)
  assert.deepEqual(states().at(-1), [2, 9, 'unrecoverable', reason])
})

for (const [what, status, body] of [
  ['an HTML page from a proxy', 404, '<html>Not Found</html>'],
  ['a code of a temporary error', 400, '{"code":-1000,"msg":"An unknown error occurred."}'],
  ['a missing API key', 401, '{"code":-2014,"msg":"API-key format invalid."}'],
  ['an error without a body', 413, ''],
] as const) {
  test(`B7 loses no ids through ${what}, however long it lasts, and warns once`, async () => {
    let isServed = false
    const { clock, calls, states, warnings, problem } = scene(10, (from) =>
      isServed ? restRows(from, 9) : restRefused(status, null, body),
    )
    await clock.advance(6 * 3_600_000)
    assert.deepEqual(states(), [[2, 9, 'open']])
    assert.ok(calls.length > 20 && calls.length < 100, `${calls.length} requests`)
    assert.equal(warnings.length, 1)
    assert.equal(/BINANCE_API_KEY/.test(JSON.stringify(warnings)), status === 401)
    const { problem: reason, isFailing, fix } = problem() ?? assert.fail()
    assert.match(reason ?? '', new RegExp(`^HTTP ${status}`))
    assert.equal(isFailing, true)
    assert.equal(/BINANCE_API_KEY/.test(fix ?? ''), status === 401)
    isServed = true
    await clock.advance(600_000)
    assert.deepEqual(states().at(-1), [2, 9, 'filled'])
  })
}

test('B1 repeatedly failing gaps leave the others their turns', async () => {
  const { clock, ledger, sequence, states, warnings } = scene(
    10,
    (from, _call, limit) => (from < 200 ? restRefused(404) : restRows(from, from + limit - 1)),
    // Two requests per minute: fewer than the small gaps need.
    { weight: 50 },
  )
  const open = (from: number, to: number) => {
    sequence.observe({ firstId: to + 1, id: to + 1, timeMs: to, connection: 0 })
    ledger.open(TRADES, { from, to }, 'reconnect', { fromMs: from, toMs: to })
  }
  for (let id = 11; id < 91; id += 2) open(id, id)
  sequence.observe({ firstId: 199, id: 199, timeMs: 199, connection: 0 })
  open(200, 1500)
  await clock.advance(40 * 60_000)
  assert.deepEqual(states().at(-1), [200, 1500, 'filled'])
  assert.equal(ledger.openGaps.length, 41)
  assert.equal(warnings.length, 1, 'one reason, one warning')
})

test('B10 stops immediately while the exchange does not answer, and while the budget is used up', async () => {
  const hanging = scene(10, () => new Promise<RestOutcome>(() => {}))
  await hanging.clock.advance(1000)
  await hanging.backfill.stop()
  assert.deepEqual(hanging.states(), [[2, 9, 'open']])
  const waiting = scene(10, () => restRefused(418, 600))
  await waiting.clock.advance(1000)
  await waiting.backfill.stop()
  assert.equal(waiting.calls.length, 1)
})

test('B1 finds the smallest of ten thousand gaps without checking the others, and removes closed ones', async () => {
  const clock = new VirtualClock()
  const closed = new Set<string>()
  let looks = 0
  const isOpen = ({ gap_id }: IdGap) => ++looks > 0 && !closed.has(gap_id)
  const backoff = { initialMs: 1000, maxMs: 1000 }
  const schedule = new BackfillSchedule(isOpen, { clock, random: () => 0.5, backoff })
  const { ledger } = ledgerAlone(1)
  for (let i = 0; i < 10_000; i++) {
    const from = i * 100
    ledger.open(TRADES, { from, to: from + ((i * 37) % 91) }, 'missed', { fromMs: 1, toMs: 2 })
  }
  for (const gap of ledger.openGaps.filter(isTradeGap)) schedule.add(gap)
  for (const { gap_id } of ledger.openGaps.slice(0, 5000)) closed.add(gap_id)
  /** Takes all that are due. Puts every other gap back once, for a later request. */
  const takeAll = (isPutBack: boolean) => {
    const sizes: number[] = []
    for (let task = schedule.take(); task !== null; task = schedule.take()) {
      sizes.push(task.gap.to_id - task.gap.from_id)
      if (!isPutBack || sizes.length % 2 === 1) continue
      task.attempt.failed()
      schedule.putBack(task)
    }
    assert.deepEqual(
      sizes,
      sizes.toSorted((one, other) => one - other),
    )
    return sizes.length
  }
  assert.equal(takeAll(true), 5000)
  assert.equal(schedule.nextDueMs, 750)
  assert.ok(looks < 20_000, `the ledger was queried ${looks} times`)
  await clock.advance(750)
  assert.equal(takeAll(false), 2500)
})

test('L1–L3 raises the revision with every change of a gap, and gives a split-off part a new id', () => {
  const { ledger, rows: published } = ledgerAlone(1)
  const gap = ledger.open(TRADES, { from: 10, to: 20 }, 'missed', { fromMs: null, toMs: null })
  ledger.unrecoverable(gap, { from: 13, to: 14 }, 'absent at exchange')
  assert.deepEqual(columns(published, 'gap_id', 'revision', 'from_id', 'to_id', 'status'), [
    ['BTCUSDT/trade/0/10', 1, 10, 20, 'open'],
    ['BTCUSDT/trade/0/10', 2, 10, 12, 'filled'],
    ['BTCUSDT/trade/0/13', 1, 13, 14, 'unrecoverable'],
    ['BTCUSDT/trade/0/15', 1, 15, 20, 'open'],
  ])
  assert.deepEqual(column(ledger.openGaps, 'gap_id'), ['BTCUSDT/trade/0/15'])
})
