import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Gap } from '../src/foundation/market/gap.ts'
import { Continuity } from '../src/ingestion/continuity/continuity.ts'
import { GapLedger } from '../src/ingestion/continuity/gap-ledger.ts'
import type { StampedEvent } from '../src/ingestion/forwarder.ts'
import type { OutgoingMessage } from '../src/ingestion/messages/message.ts'
import { coreAlone } from './support/core-alone.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const STREAM = 'btcusdt@trade'
const FIRST_OLD = 4_000_000_000
const T0 = Date.UTC(2026, 0, 1)

interface Trade {
  readonly id: number
  readonly timeMs: number
  /** Number of earlier resets. */
  readonly epoch: number
}

const frameOf = ({ id, timeMs }: Trade) =>
  Buffer.from(
    `{"stream":"${STREAM}","data":{"e":"trade","E":${timeMs},"s":"BTCUSDT","t":${id},"p":"1.0","q":"1.0","T":${timeMs},"m":true,"M":true}}`,
  )

/** From frames to messages and ledger, over connections opened before. */
function recorder(connections: number) {
  const clock = new VirtualClock(T0)
  const sent: OutgoingMessage[] = []
  const rows = new Map<string, Gap>()
  const ledger = new GapLedger(
    (gap) => rows.set(gap.gap_id, gap),
    () => Math.floor(clock.wallMicros() / 1000),
  )
  const continuity = new Continuity<StampedEvent>(ledger)
  let frames = 0
  const handler = coreAlone({
    stamp: () => ({ ms: clock.wallMicros() / 1000 + ++frames, us: clock.wallMicros() + frames * 1000 }),
    clock,
    continuity,
    router: {
      route: (_stream, symbol, type, epoch) => ({
        symbol,
        type,
        topic: 't',
        partition: 0,
        key: Buffer.from(symbol),
        headers: new Map(),
        epoch,
      }),
    },
    deadLettersTopic: 'd',
    send: (message) => sent.push(message),
  })
  for (let connection = 0; connection < connections; connection++)
    handler.connected(connection, { streams: [STREAM], subscriptions: [] })
  return { clock, sent, rows, handler, continuity }
}

/** Increasing ids, mostly with increasing times. */
const sequence = (firstId: number, fromMs: number, epoch: number, jitters: readonly number[]): Trade[] =>
  jitters.map((jitter, i) => ({ id: firstId + i, timeMs: fromMs + i * 10 + jitter, epoch }))

const jitters = (minLength: number) => fc.array(fc.integer({ min: 0, max: 35 }), { minLength, maxLength: 60 })

/** The part of the stream that one connection delivers. */
const connection = fc.record({
  lost: fc.array(fc.nat(120), { maxLength: 6 }),
  swapped: fc.array(fc.nat(120), { maxLength: 6 }),
  repeated: fc.array(fc.record({ at: fc.nat(120), count: fc.integer({ min: 1, max: 12 }) }), {
    maxLength: 4,
  }),
  /** Frames that it delivers in its turn. */
  turns: fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 8 }),
})

function delivered(
  trades: readonly Trade[],
  {
    lost,
    swapped,
    repeated,
  }: { lost: number[]; swapped: number[]; repeated: Array<{ at: number; count: number }> },
): Trade[] {
  const kept = trades.filter((_, i) => !lost.includes(i))
  for (const at of swapped) {
    const [left, right] = kept.slice(at, at + 2)
    if (left !== undefined && right !== undefined && left.epoch === right.epoch)
      kept.splice(at, 2, right, left)
  }
  return kept.flatMap((trade, i) => [
    trade,
    ...repeated
      .filter(({ at }) => at === i)
      .flatMap(({ count }) => kept.slice(Math.max(0, i + 1 - count), i + 1)),
  ])
}

const world = fc.record({
  old: jitters(4),
  fresh: fc.option(
    fc.record({
      jitters: jitters(12),
      firstId: fc.constantFrom(0, 1, 700, 2_000_000),
      pauseMs: fc.constantFrom(1, 40, 5000, 3_600_000),
    }),
  ),
  connections: fc.array(connection, { minLength: 1, maxLength: 3 }),
})

test('S3–S10 irregular times, lags, duplicates and swaps over several connections: no false reset, and a trace of every event', async () => {
  await fc.assert(
    fc.asyncProperty(world, async ({ old, fresh, connections }) => {
      const before = sequence(FIRST_OLD, T0, 0, old)
      const lastOldMs = Math.max(...before.map(({ timeMs }) => timeMs))
      const after = fresh === null ? [] : sequence(fresh.firstId, lastOldMs + fresh.pauseMs, 1, fresh.jitters)
      const deliveries = connections.map((one) => delivered([...before, ...after], one))
      const { clock, sent, rows, handler, continuity } = recorder(connections.length)
      const left = deliveries.map((trades) => [...trades])
      for (let turn = 0; left.some((trades) => trades.length > 0); turn++) {
        for (const [id, trades] of left.entries()) {
          const turns = connections[id]?.turns ?? []
          // A connection without turns catches up at the end.
          const count = turn > 200 ? trades.length : (turns[turn % turns.length] ?? 0)
          for (const trade of trades.splice(0, count)) handler.onFrame(frameOf(trade), id)
        }
      }
      await clock.advance(20_000)

      const marks = sent.flatMap(({ mark }) => (mark === null ? [] : [mark]))
      const keys = marks.map(({ epoch, id }) => `${epoch}/${id}`)
      assert.equal(keys.length, new Set(keys).size, 'each id once')
      const letters = sent.filter(({ mark }) => mark === null).map(({ value }) => String(value))
      const ledger = [...rows.values()]
      assert.equal(continuity.epochOf(STREAM), fresh === null ? 0 : 1)
      assert.equal(
        ledger.filter(({ cause, from_id }) => cause === 'reset' && from_id === null).length,
        after.length > 0 ? 1 : 0,
      )
      if (fresh === null) assert.deepEqual(letters, [])
      for (const { epoch, from_id, to_id } of ledger) {
        if (from_id === null || to_id === null) continue
        const ids = (epoch === 0 ? before : after).map(({ id }) => id)
        assert.ok(
          ids.includes(from_id) && ids.includes(to_id),
          `${epoch}: ${from_id}..${to_id} exist at the exchange`,
        )
      }

      const isTraced = ({ id, timeMs, epoch }: Trade) =>
        keys.includes(`${epoch}/${id}`) ||
        letters.includes(String(frameOf({ id, timeMs, epoch }))) ||
        ledger.some((row) =>
          row.from_id === null
            ? timeMs >= (row.from_time ?? 0) && timeMs <= (row.to_time ?? 0)
            : row.epoch === epoch && id >= row.from_id && id <= (row.to_id ?? 0),
        )
      // Ids before the first event are before the recording.
      const firstId = marks[0]?.id ?? 0
      const wanted = deliveries.flat().filter(({ id, epoch }) => epoch === 1 || id >= firstId)
      assert.deepEqual(
        wanted.filter((trade) => !isTraced(trade)),
        [],
      )
      const { received, forwarded, duplicate, held, rejected } = handler.counters
      assert.equal(received, forwarded + duplicate + held + rejected)
      assert.equal(held, 0)
    }),
    { numRuns: 500 },
  )
})
