import assert from 'node:assert/strict'
import { beforeEach, describe, test } from 'node:test'
import { Keyframes } from '../src/consumer/keyframes.ts'
import { isoOfUs } from '../src/foundation/market/time-unit.ts'
import { bookAt, type Instant } from '../src/foundation/order-book/book-at.ts'
import type { Anchor, BookDiff } from '../src/foundation/order-book/book-rows.ts'
import { compressNextChunk, dropOldChunks } from '../src/foundation/store/chunks.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { StoredBooks } from '../src/foundation/store/stored-books.ts'
import { createLogger } from '../src/foundation/telemetry/log.ts'
import { bookStore } from './support/book-store.ts'
import { column } from './support/columns.ts'
import { databaseKinds, databaseOfSuite } from './support/database.ts'
import { insertDepth } from './support/stored-depth.ts'
import { endsOf, type Order, TrueBook } from './support/true-book.ts'
import { until } from './support/wait-for.ts'

const SILENT = createLogger('test', 'silent')
const DAY_MS = 86_400_000

/** A bid and an ask around a price that moves, 400 times. */
const ORDERS = Array.from({ length: 400 }, (_, i): Order => {
  const middle = 20 + Math.round(8 * Math.sin(i / 30))
  const away = 1 + ((i * 7) % 5)
  return i % 2 === 0
    ? { side: 'bids', price: middle - away, quantity: i % 9 }
    : { side: 'asks', price: middle + away, quantity: i % 7 }
})
const TRUTH = new TrueBook(ORDERS)
const LAST = TRUTH.lastUpdateId
const LENGTHS = Array.from({ length: LAST }, (_, i) => 1 + (i % 3))
const DIFFS = TRUTH.diffs(endsOf(LENGTHS, LAST))
const ANCHORS = [40, 220].map((updateId) => TRUTH.snapshot(updateId, 6))

/** Rows with other ids and times. */
function moved<Row extends BookDiff | Anchor>(rows: readonly Row[], epoch: number, us: number): Row[] {
  return rows.map((row) => ({
    ...row,
    epoch,
    receivedUs: row.receivedUs + us,
    ...('eventTimeUs' in row ? { eventTimeUs: row.eventTimeUs + us } : {}),
  }))
}

for (const { name, ...options } of databaseKinds()) {
  describe(`keyframes in the ${name} database`, options, () => {
    const on = databaseOfSuite('migrated', name)
    const needsTwo = { skip: name === 'embedded' && 'it has one backend' }
    beforeEach(async () => {
      await on.database.query('TRUNCATE depth_updates, depth_snapshots, meta')
    })

    const keyframes = async () => {
      const { rows } = await on.database.query<{ place: string }>(
        `SELECT concat_ws(' ', epoch, last_update_id, 'from', anchor_update_id) AS place FROM depth_snapshots
         WHERE kind = 'derived' ORDER BY epoch, last_update_id`,
      )
      return column(rows, 'place')
    }
    /** Stores the keyframes that are due, as a consumer that has just started. */
    const round = () => new Keyframes(on.database, SILENT, 20).round()

    test('a second epoch begins again from its own snapshot', async () => {
      const second = { diffs: moved(DIFFS, 1, 1e6), anchors: moved(ANCHORS.slice(1), 1, 1e6) }
      await insertDepth(on.database, [...DIFFS, ...second.diffs], [...ANCHORS, ...second.anchors])
      await round()
      const made = await keyframes()
      assert.deepEqual(
        new Set(made.map((place) => place.replace(/ \d+ /, ' '))),
        new Set(['0 from 40', '0 from 220', '1 from 220']),
      )
      assert.deepEqual(
        made.filter((place) => place.startsWith('1')),
        made
          .filter((place) => place.endsWith('220') && place.startsWith('0'))
          .map((place) => place.replace(/^0/, '1')),
      )
      await round()
      assert.deepEqual(await keyframes(), made, 'each once')
    })

    test('two consumers store the keyframes that one stores, each once', needsTwo, async () => {
      await insertDepth(on.database, DIFFS, ANCHORS)
      await round()
      const expected = await keyframes()
      assert.ok(expected.length > 5)
      await on.database.query("DELETE FROM depth_snapshots WHERE kind = 'derived'")
      const other = openPostgres({ url: on.url, poolMin: 0, poolMax: 2, applicationName: 'other' })
      try {
        const both = [new Keyframes(on.database, SILENT, 20), new Keyframes(other, SILENT, 20)]
        await until('both to have nothing to do', async () => {
          const before = await keyframes()
          await Promise.all(both.map((one) => one.round()))
          return before.length === (await keyframes()).length && before.length > 0
        })
        assert.deepEqual(await keyframes(), expected)
        assert.equal(
          both.reduce((sum, { made }) => sum + made, 0),
          expected.length,
        )
      } finally {
        await other.close()
      }
    })

    test('an abort while a keyframe is stored leaves none, and no lock', needsTwo, async () => {
      await insertDepth(on.database, DIFFS, ANCHORS)
      const stopped = new Keyframes(on.database, SILENT, 20)
      await on.database.transaction(async (blocking) => {
        // Permits reading, not inserting.
        await blocking.query('LOCK TABLE depth_snapshots IN SHARE MODE')
        const ending = assert.rejects(stopped.round())
        await until('the insert to wait', async () => {
          const { rowCount } = await on.database.query(
            "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
          )
          return rowCount > 0
        })
        stopped.stop()
        await ending
      })
      assert.deepEqual([await keyframes(), stopped.made], [[], 0])
      await round()
      assert.ok((await keyframes()).length > 5)
    })

    test('after retention and compression books are those of the remaining rows', async () => {
      const today = Math.floor(Date.now() / DAY_MS) * DAY_MS
      const days = [9, 4, 0].map((ago, epoch) => {
        const us = (today - ago * DAY_MS) * 1000
        return { diffs: moved(DIFFS, epoch, us), anchors: moved(ANCHORS, epoch, us), us }
      })
      for (const { diffs, anchors } of days) await insertDepth(on.database, diffs, anchors)
      await round()
      const dropped = await dropOldChunks(on.database, 6)
      assert.deepEqual(column(dropped, 'table'), ['depth_snapshots', 'depth_updates'])
      assert.ok((await keyframes()).every((place) => !place.startsWith('0')))
      // The only server here with the licence for it.
      if (name === 'embedded') {
        const compressed = [await compressNextChunk(on.database, 2), await compressNextChunk(on.database, 2)]
        assert.deepEqual(
          compressed.map((chunk) => chunk?.table),
          ['depth_snapshots', 'depth_updates'],
        )
      }
      // What a consumer does after it.
      await round()
      const kept = days.slice(1)
      const inMemory = bookStore(
        kept.flatMap(({ diffs }) => diffs),
        kept.flatMap(({ anchors }) => anchors),
      )
      for (const { us } of days)
        for (const updateId of [30, 39, 41, 130, 219, 300, LAST]) {
          const instant: Instant = { kind: 'event time', us: us + updateId * 1000 }
          const expected = await bookAt(inMemory, instant)
          const answer = await bookAt(new StoredBooks(on.database, 'BTCUSDT'), instant)
          assert.deepEqual(
            withoutKeyframe(answer),
            withoutKeyframe(expected),
            `${updateId} of ${isoOfUs(us)}`,
          )
          const inSql = on.database.query('SELECT DISTINCT update_id::float8 AS id FROM book_at($1, $2)', [
            'BTCUSDT',
            isoOfUs(instant.us),
          ])
          if (expected.kind === 'book')
            assert.deepEqual((await inSql).rows, [{ id: expected.at.lastUpdateId }])
          else await assert.rejects(inSql, { code: 'P0002' })
        }
    })
  })
}

/** The snapshot that a book began from is the same with and without keyframes. */
function withoutKeyframe(answer: Awaited<ReturnType<typeof bookAt>>) {
  if (answer.kind !== 'book') return answer
  const { derivedFrom, ...anchor } = answer.anchor
  return { ...answer, anchor: derivedFrom ?? anchor }
}
