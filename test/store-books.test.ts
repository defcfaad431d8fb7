import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Keyframes } from '../src/consumer/keyframes.ts'
import { isoOfUs } from '../src/foundation/market/time-unit.ts'
import {
  type BookAt,
  type BookRefusal,
  type BookStore,
  bookAt,
} from '../src/foundation/order-book/book-at.ts'
import { OrderBook, SIDE_NAMES } from '../src/foundation/order-book/order-book.ts'
import type { Database } from '../src/foundation/store/database.ts'
import { StoredBooks } from '../src/foundation/store/stored-books.ts'
import { createLogger } from '../src/foundation/telemetry/log.ts'
import { diffOf, keyframeOf, type Pair, snapshotOf } from './support/book-rows.ts'
import { bookStore } from './support/book-store.ts'
import { column } from './support/columns.ts'
import { databaseKinds, openTestDatabase } from './support/database.ts'
import { RECORDINGS, recordingOf, storedKeyframes, storeEvents } from './support/recorded-books.ts'
import { insertDepth } from './support/stored-depth.ts'

const SYMBOL = 'BTCUSDT'
const LEVELS = 5
const SEED = Number(process.env['TAPELINE_TEST_SEED'] ?? 19)
const RUNS = { native: 30, embedded: 6 }

for (const { name: kind, ...options } of databaseKinds())
  test(
    `O1–O15 books of the ${kind} database, by book_at and by bookAt, are those of the same rows in memory`,
    options,
    async (t) => {
      await using open = await openTestDatabase('migrated', kind)
      const { database } = open
      const met = new Map<string, number>()
      t.diagnostic(`TAPELINE_TEST_SEED=${SEED}`)
      await fc.assert(
        fc.asyncProperty(RECORDINGS, async (random) => {
          const { early, late, spans } = recordingOf(random)
          await database.query('TRUNCATE depth_updates, depth_snapshots, consumer_offsets')
          await storeEvents(database, early)
          await keyframesOf(database)
          // Some that are stored already.
          await storeEvents(database, [...late, ...early.slice(0, 3)])
          await keyframesOf(database)
          const all = [...early, ...late]
          const inMemory = bookStore(
            all.flatMap((one) => ('firstUpdateId' in one.row ? [one.row] : [])),
            [
              ...all.flatMap((one) => ('firstUpdateId' in one.row ? [] : [one.row])),
              ...(await storedKeyframes(database)),
            ],
          )
          for (const { fromMs, toMs } of spans)
            for (let i = 1; i <= 8; i++) {
              const us = Math.floor(fromMs + ((toMs - fromMs) * i) / 8) * 1000 + 200 * (i % 2)
              const reason = await assertSame(database, inMemory, us)
              met.set(reason, (met.get(reason) ?? 0) + 1)
              const updateId = Math.floor((us / 1000 - fromMs) % 400)
              for (const instant of [
                { kind: 'receipt', us } as const,
                { kind: 'update id', epoch: null, updateId } as const,
              ])
                assert.deepEqual(
                  await bookAt(new StoredBooks(database, SYMBOL), instant, LEVELS),
                  await bookAt(inMemory, instant, LEVELS),
                  JSON.stringify(instant),
                )
            }
          assert.deepEqual(
            await bookAt(new StoredBooks(database, 'ETHUSDT'), { kind: 'event time', us: 9e15 }),
            {
              kind: 'refused',
              reason: 'nothing recorded',
              first: null,
            },
          )
        }),
        { numRuns: RUNS[kind], seed: SEED, interruptAfterTimeLimit: 90_000, markInterruptAsFailure: true },
      )
      t.diagnostic(JSON.stringify(Object.fromEntries(met)))
    },
  )

async function keyframesOf(database: Database): Promise<void> {
  await new Keyframes(database, createLogger('test', 'silent'), 3).round()
}

/** Compares the answers at an event time. @returns `book`, or why there is none */
async function assertSame(database: Database, inMemory: BookStore, us: number): Promise<string> {
  const instant = { kind: 'event time', us } as const
  const expected = await bookAt(inMemory, instant, LEVELS)
  assert.deepEqual(await bookAt(new StoredBooks(database, SYMBOL), instant, LEVELS), expected)
  const { basisPoints, ...answer } = await bookInSql(database, us)
  if (expected.kind === 'refused') {
    assert.deepEqual(answer, refusalText(expected, us))
    return expected.reason
  }
  const { rows, basisPoints: points } = rowsOf(expected)
  assert.deepEqual(answer, { rows })
  for (const [i, point] of points.entries())
    if (point === null) assert.equal(basisPoints?.[i], null)
    else assert.ok(Math.abs(Number(basisPoints?.[i]) - point) < 0.011, `${basisPoints?.[i]} and ${point}`)
  return 'book'
}

interface SqlRow {
  readonly side: string
  readonly level: number
  readonly price: string
  readonly quantity: string
  readonly horizon: string | null
  readonly basisPoints: string | null
}

async function bookInSql(database: Database, us: number) {
  try {
    const { rows } = await database.query<SqlRow>(
      `SELECT side, level, price::text, quantity::text, horizon::text, horizon_bps::text AS "basisPoints",
         (extract(epoch FROM event_time) * 1000000)::float8 AS "eventTimeUs", update_id::float8 AS "updateId",
         anchor_update_id::float8 AS "anchorId", (extract(epoch FROM age) * 1000000)::float8 AS "ageUs"
       FROM book_at($1, $2, $3)`,
      [SYMBOL, isoOfUs(us), LEVELS],
    )
    return {
      rows: rows.map(({ basisPoints: _, ...row }) => row),
      basisPoints: rows.map(({ basisPoints }) => basisPoints),
    }
  } catch (error) {
    assert.equal(Reflect.get(Object(error), 'code'), 'P0002', String(error))
    const message = withIsoTimes(String(Reflect.get(Object(error), 'message')))
    const hint: unknown = Reflect.get(Object(error), 'hint')
    if (typeof hint !== 'string' || message.startsWith('The best')) return { message }
    return { message, hint: withIsoTimes(hint) }
  }
}

function withIsoTimes(text: string): string {
  return text.replaceAll(
    /(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d+))?\+00/g,
    (_, day, time, fraction = '') =>
      isoOfUs(Date.parse(`${day}T${time}Z`) * 1000 + Number(String(fraction).padEnd(6, '0'))),
  )
}

function rowsOf({ at, anchor, ageUs, ...sides }: BookAt) {
  const common = {
    eventTimeUs: at.eventTimeUs,
    updateId: at.lastUpdateId,
    anchorId: (anchor.derivedFrom ?? anchor).lastUpdateId,
    ageUs,
  }
  const found = SIDE_NAMES.flatMap((name) => {
    const { levels, horizon } = sides[name]
    return levels.map((level, i) => ({
      row: { side: name.slice(0, -1), level: i + 1, ...level, horizon: horizon?.price ?? null, ...common },
      basisPoints: horizon?.basisPoints ?? null,
    }))
  })
  return { rows: found.map(({ row }) => row), basisPoints: found.map(({ basisPoints }) => basisPoints) }
}

/** What book_at says. */
function refusalText(refusal: BookRefusal, us: number) {
  switch (refusal.reason) {
    case 'nothing recorded':
      return { message: `No change of the order book of ${SYMBOL} is stored at or before ${isoOfUs(us)}` }
    case 'not recorded yet':
      return assert.fail('an update id')
    case 'no anchor':
      return {
        message:
          refusal.tooOld === null
            ? `No snapshot of the order book of ${SYMBOL} is stored at or before ${isoOfUs(us)}`
            : `The snapshot with update id ${refusal.tooOld.lastUpdateId} of ${SYMBOL} is older than the first stored change`,
        hint: hintOf(refusal),
      }
    case 'hole': {
      const { fromUs, toUs, missing } = refusal
      const times = `between ${isoOfUs(fromUs)} and ${isoOfUs(toUs)}`
      return {
        message:
          missing === null
            ? `The update ids of ${SYMBOL} began again ${times}`
            : `The update ids ${missing.from} to ${missing.to} of ${SYMBOL} are missing, ${times}`,
        hint: hintOf(refusal),
      }
    }
    case 'outside the horizon': {
      const { side, horizon, anchor } = refusal
      return {
        message:
          `The best ${side.slice(0, -1)} of ${SYMBOL} is outside the horizon ${horizon} of the snapshot with ` +
          `update id ${anchor.lastUpdateId} (received ${isoOfUs(anchor.receivedUs)})`,
      }
    }
  }
}

function hintOf({ next }: Extract<BookRefusal, { reason: 'hole' | 'no anchor' }>): string {
  if (next === null) return 'No later snapshot is stored yet'
  return `The book is known again from update id ${next.lastUpdateId}, received ${isoOfUs(next.receivedUs)}`
}

for (const { name: kind, ...options } of databaseKinds())
  test(
    `O15 the ${kind} database: a deeper snapshot of the same id, one below a keyframe, and refusals`,
    options,
    async () => {
      await using open = await openTestDatabase('migrated', kind)
      const { database } = open
      const bids: Pair[] = [
        ['99', '1'],
        ['98', '2'],
        ['97', '3'],
        ['96', '4'],
      ]
      const asks: Pair[] = [
        ['101', '1'],
        ['102', '1'],
        ['103', '1'],
        ['104', '1'],
      ]
      const fallen = diffOf(
        111,
        120,
        [
          ['99', '0'],
          ['98', '0'],
        ],
        [],
      )
      const diffs = [diffOf(91, 105, [], []), diffOf(106, 110, [], []), fallen]
      const shallow = snapshotOf(105, bids, asks, { limit: 2 })
      const deep = snapshotOf(105, bids, asks, { limit: 4, receivedUs: 107_000 })
      const book = new OrderBook()
      book.reset(shallow)
      for (const diff of diffs) book.apply(diff)
      const keyframe = keyframeOf(book.state(), shallow, 120_500)
      const sqlBids = async () =>
        (
          await database.query<{ text: string }>(
            `SELECT price::text AS text FROM book_at('BTCUSDT', $1) WHERE side = 'bid'`,
            [isoOfUs(120_000)],
          )
        ).rows.map(({ text }) => text)
      const hidden = snapshotOf(110, bids, asks, { limit: 4 })
      for (const anchors of [
        [shallow, deep],
        [shallow, keyframe, hidden],
      ]) {
        await database.query('TRUNCATE depth_updates, depth_snapshots')
        await insertDepth(database, diffs, anchors)
        assert.deepEqual(await sqlBids(), ['97', '96'])
        const answer = await bookAt(new StoredBooks(database, 'BTCUSDT'), { kind: 'event time', us: 120_000 })
        assert.ok(answer.kind === 'book')
        assert.deepEqual(column(answer.bids.levels, 'price'), ['97', '96'])
      }
      await database.query('TRUNCATE depth_updates, depth_snapshots')
      await insertDepth(database, diffs, [shallow])
      await assert.rejects(
        sqlBids(),
        /best bid of BTCUSDT is outside the horizon 98 of the snapshot with update id 105 \(/,
      )
      const early = await bookAt(new StoredBooks(database, 'BTCUSDT'), { kind: 'event time', us: 104_999 })
      assert.ok(early.kind === 'refused' && early.reason === 'nothing recorded')
      assert.equal(early.first?.firstUpdateId, 91)
      // The clock was three days ahead when it came, so no change after it is looked for.
      await database.query('TRUNCATE depth_snapshots')
      await insertDepth(database, [], [snapshotOf(105, bids, asks, { receivedUs: 3 * 86_400e6 })])
      await assert.rejects(sqlBids(), /The update ids 106 to 120 of BTCUSDT are missing/)
    },
  )
