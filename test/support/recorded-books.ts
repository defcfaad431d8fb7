import assert from 'node:assert/strict'
import fc from 'fast-check'
import { Batch } from '../../src/consumer/batch.ts'
import { databaseStore } from '../../src/consumer/database-store.ts'
import { Decoder } from '../../src/foundation/kafka/message-decoder.ts'
import type { Anchor, BookDiff } from '../../src/foundation/order-book/book-rows.ts'
import { LevelColumns, type Levels } from '../../src/foundation/order-book/level-columns.ts'
import { SIDE_NAMES } from '../../src/foundation/order-book/order-book.ts'
import { systemClock } from '../../src/foundation/runtime/clock.ts'
import type { Database } from '../../src/foundation/store/database.ts'
import { createLogger } from '../../src/foundation/telemetry/log.ts'
import { diffOf, type Pair, snapshotOf } from './book-rows.ts'
import { eventValue, record } from './records.ts'
import { endsOf, HISTORIES, type Order, TrueBook } from './true-book.ts'

/*
 * Random recordings of order books: two connections, holes, an epoch change, altered changes that cross the
 * book, rows that arrive late. They are not all true: they show whether two readers of rows agree.
 */

const START_MS = Date.UTC(2024, 7, 8, 12)
/** Between two epochs. */
const EPOCH_MS = 2000

/** An event as Kafka has it, and the row that it becomes. */
export interface RecordedEvent {
  readonly value: Buffer
  readonly row: BookDiff | Anchor
}

const part = fc.double({ min: 0, max: 1, noNaN: true })
const indexes = fc.uniqueArray(fc.nat(40), { maxLength: 3 })

const EPOCH = fc.record({
  history: HISTORIES,
  /** Changes of the other connection. */
  others: fc.nat(12),
  lost: indexes,
  late: indexes,
  anchors: fc.array(fc.record({ at: part, limit: fc.integer({ min: 1, max: 6 }) }), { maxLength: 3 }),
  altered: fc.array(
    fc.record({
      index: fc.nat(40),
      order: fc.record<Order>({
        side: fc.constantFrom(...SIDE_NAMES),
        price: fc.integer({ min: 1, max: 40 }),
        quantity: fc.integer({ min: 0, max: 4 }),
      }),
    }),
    { maxLength: 4 },
  ),
})

export const RECORDINGS = fc.array(EPOCH, { minLength: 1, maxLength: 2 })

type Random = typeof RECORDINGS extends fc.Arbitrary<infer T> ? T : never

/** @returns events, those that arrive later than the others, and the times of each epoch on the exchange's clock */
export function recordingOf(random: Random) {
  const early: RecordedEvent[] = []
  const late: RecordedEvent[] = []
  const spans: Array<{ fromMs: number; toMs: number }> = []
  for (const [epoch, one] of random.entries()) {
    const truth = new TrueBook(one.history.orders)
    const { lastUpdateId } = truth
    const { cuts, otherCuts, anchorAt, limit } = one.history
    const diffs = [cuts, otherCuts.slice(0, one.others)].flatMap((lengths) =>
      truth.diffs(endsOf(lengths, lastUpdateId)),
    )
    const seen = new Set<string>()
    for (const [i, diff] of diffs.entries()) {
      const key = `${diff.firstUpdateId} ${diff.lastUpdateId}`
      if (one.lost.includes(i) || seen.has(key)) continue
      seen.add(key)
      const altered = one.altered.flatMap(({ index, order }) => (index === i ? [order] : []))
      const event = diffEvent(epoch, diff, altered)
      ;(one.late.includes(i) ? late : early).push(event)
    }
    const ids = new Set<number>()
    for (const { at, limit: levels } of [{ at: anchorAt, limit }, ...one.anchors]) {
      const snapshot = truth.snapshot(Math.max(1, Math.floor(at * lastUpdateId)), levels)
      if (ids.has(snapshot.lastUpdateId)) continue
      ids.add(snapshot.lastUpdateId)
      early.push(snapshotEvent(epoch, snapshot, levels))
    }
    spans.push({ fromMs: timeMs(epoch, 0), toMs: timeMs(epoch, lastUpdateId) + 5 })
  }
  return { early, late, spans }
}

/** Not in the order of the ids. */
function timeMs(epoch: number, updateId: number): number {
  return START_MS + epoch * EPOCH_MS + updateId + ((updateId * 7) % 5)
}

function diffEvent(
  epoch: number,
  { firstUpdateId, lastUpdateId, bids, asks }: BookDiff,
  altered: readonly Order[],
): RecordedEvent {
  const side = (name: (typeof SIDE_NAMES)[number], levels: Levels) =>
    pairsOf(
      [
        ...levelsOf(levels),
        ...altered.flatMap(({ side: of, price, quantity }) =>
          of === name ? [[price, quantity] as const] : [],
        ),
      ],
      lastUpdateId,
    )
  const [b, a] = [side('bids', bids), side('asks', asks)]
  const E = timeMs(epoch, lastUpdateId)
  return {
    value: eventValue('depth', { U: firstUpdateId, u: lastUpdateId, b, a, E, ...receipt(E * 1000 + 500) }),
    row: diffOf(firstUpdateId, lastUpdateId, b, a, { epoch, eventTimeUs: E * 1000 }),
  }
}

function snapshotEvent(epoch: number, { lastUpdateId, bids, asks }: Anchor, limit: number): RecordedEvent {
  const [b, a] = [pairsOf(levelsOf(bids), lastUpdateId), pairsOf(levelsOf(asks), lastUpdateId)]
  const receivedUs = timeMs(epoch, lastUpdateId) * 1000 + 700
  return {
    value: eventValue('depthSnapshot', { lastUpdateId, bids: b, asks: a, limit, ...receipt(receivedUs) }),
    row: snapshotOf(lastUpdateId, b, a, { limit, epoch, receivedUs }),
  }
}

function receipt(us: number) {
  return { ingestion_timestamp: Math.floor(us / 1000), ingestion_timestamp_us: us }
}

function levelsOf({ count, prices, quantities }: Levels) {
  return Array.from({ length: count }, (_, i) => [prices[i] ?? 0, quantities[i] ?? 0] as const)
}

/** With other scales from row to row. Each price once. */
function pairsOf(levels: ReadonlyArray<readonly [price: number, quantity: number]>, seed: number): Pair[] {
  const decimals = seed % 3 === 0 ? 8 : 2
  return [...new Map(levels)].map(([price, quantity]) => [
    (price / 4).toFixed(decimals),
    (quantity / 8).toFixed(seed % 2 === 0 ? 8 : 3),
  ])
}

const TOPIC_ID = '0f0e0d0c-0b0a-0908-0706-050403020100'
const START = { topic: 't', topicId: TOPIC_ID, partition: 0, nextOffset: 0, leaderEpoch: -1 }

/** Stores events as the consumer does. */
export async function storeEvents(database: Database, events: readonly RecordedEvent[]): Promise<void> {
  const store = databaseStore(database, systemClock(), createLogger('test', 'silent'))
  const decoder = new Decoder()
  const batch = new Batch(0)
  for (const { value, row } of events) {
    const message = record(value, null, { epoch: String(row.epoch) })
    assert.equal(decoder.decode('depth', message), null, value.toString())
    batch.add('depth', decoder, START, message)
  }
  const [position] = await store.readOffsets()
  const from = position ?? START
  if (position === undefined)
    await store.establish(() => ({ positions: [START], toWrite: [START], losses: [], notices: [] }))
  const next = from.nextOffset + events.length
  batch.advance(START, from.nextOffset, { next, leaderEpoch: 0, receivedUs: null })
  await store.write(batch)
}

/** Reads the keyframes of the database. */
export async function storedKeyframes(database: Database): Promise<Anchor[]> {
  const us = (column: string) => `(extract(epoch FROM ${column}) * 1000000)::float8`
  type Row = Pick<Anchor, 'epoch' | 'lastUpdateId' | 'receivedUs' | 'bidHorizon' | 'askHorizon'> &
    Record<'bids' | 'asks', Buffer> &
    Record<'fromId' | 'fromUs', number>
  const { rows } = await database.query<Row>(
    `SELECT epoch, last_update_id::float8 AS "lastUpdateId", ${us('ingestion_timestamp')} AS "receivedUs", bids, asks,
       bid_horizon AS "bidHorizon", ask_horizon AS "askHorizon", anchor_update_id::float8 AS "fromId", ${us('anchor_timestamp')} AS "fromUs"
     FROM depth_snapshots WHERE kind = 'derived'`,
  )
  return rows.map(({ bids, asks, fromId, fromUs, ...row }) => ({
    ...row,
    bids: columnsOf(bids),
    asks: columnsOf(asks),
    derivedFrom: { epoch: row.epoch, lastUpdateId: fromId, receivedUs: fromUs },
  }))
}

function columnsOf(packed: Buffer): Levels {
  const columns = new LevelColumns()
  columns.read(packed)
  return columns
}
