import assert from 'node:assert/strict'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { ArchiveReader } from '../src/foundation/archive/archive-reader.ts'
import { ArchivedBooks } from '../src/foundation/archive/archived-books.ts'
import { dayRows } from '../src/foundation/archive/archived-chunks.ts'
import { rowHash } from '../src/foundation/archive/row-hash.ts'
import { ARCHIVE_TABLES } from '../src/foundation/archive/tables.ts'
import { isoOfUs } from '../src/foundation/market/time-unit.ts'
import { bookAt, type Instant } from '../src/foundation/order-book/book-at.ts'
import type { Quote } from '../src/foundation/order-book/book-check.ts'
import { StoredBooks } from '../src/foundation/store/stored-books.ts'
import { isCaughtUp } from '../src/foundation/telemetry/status.ts'
import { REPORT } from '../src/tools/verify/report-types.ts'
import { createConsumerParts } from './support/consumer-parts.ts'
import { markValue, produce } from './support/messages.ts'
import { startTapeline } from './support/processes.ts'
import {
  NO_RECORDED_DEPTH,
  recordedDepth,
  recordedDepthValues,
  recordedQuoteValues,
} from './support/recorded-depth.ts'
import { startArchiveProcess, startConsumerProcess, untilCaughtUp } from './support/services.ts'

/** A copy of BTCUSDT without one quote. */
const COPY = 'ETHUSDT'
const CHAIN = `SELECT count(*) AS diffs, count(*) FILTER (WHERE first_update_id = before + 1) AS joined FROM (
  SELECT first_update_id, lag(last_update_id) OVER (ORDER BY last_update_id) AS before FROM
    (SELECT DISTINCT first_update_id, last_update_id FROM`

const topOf = ({ updateId: _, ...top }: Quote) => JSON.stringify(top)

/** The last quote before the end of a diff in the middle, where it differs from the one before. */
function detectableQuote({ diffs, quotes }: ReturnType<typeof recordedDepth>): Quote {
  for (const { lastUpdateId } of diffs.slice(1700)) {
    const index = quotes.findLastIndex(({ updateId }) => updateId <= lastUpdateId)
    const [before, last] = [quotes[index - 1], quotes[index]]
    if (before !== undefined && last !== undefined && topOf(before) !== topOf(last)) return last
  }
  return assert.fail('no quote is detectable')
}

test('recorded frames are the same order books in the tables and in the archive, and equal the quotes', {
  skip: NO_RECORDED_DEPTH,
  timeout: 400_000,
}, async () => {
  const recorded = recordedDepth()
  const removed = detectableQuote(recorded)
  await using parts = await createConsumerParts()
  await using stack = new AsyncDisposableStack()
  const folder = await mkdtemp(join(tmpdir(), 'tapeline-books-'))
  stack.defer(() => rm(folder, { recursive: true }))
  const env = {
    ...parts.env,
    KAFKA_ARCHIVE_GROUP_ID: `${parts.env['KAFKA_GROUP_ID']}-archive`,
    ...{ ARCHIVE_URL: join(folder, 'archive'), ARCHIVE_FLUSH_INTERVAL_MS: '500' },
  }
  const topics = parts.topics.env
  await produce(topics.KAFKA_CHECKPOINTS_TOPIC, '!source', [markValue('binance', topics)])
  const [books, quotes] = [recordedDepthValues(), recordedQuoteValues()]
  const copied = (values: readonly Buffer[]) =>
    values.map((value) => Buffer.from(value.toString().replace('BTCUSDT', COPY)))
  for (const [symbol, ofBooks, ofQuotes] of [
    ['BTCUSDT', books, quotes],
    [COPY, copied(books), copied(quotes).filter((value) => !value.includes(`"u":${removed.updateId},`))],
  ] as const) {
    await produce(topics.KAFKA_DEPTH_TOPIC, symbol, ofBooks)
    await produce(topics.KAFKA_BOOK_TICKER_TOPIC, symbol, ofQuotes)
  }
  {
    await using consumer = await startConsumerProcess(env)
    await consumer.ready()
    await untilCaughtUp(consumer)
    await consumer.stop()
  }
  await using archive = await startArchiveProcess(env)
  await archive.ready()
  const sinceMs = performance.now()
  await archive.until('every message to be archived', ({ partitions, pending }) => {
    return pending === 0 && partitions.length > 0 && isCaughtUp(partitions, performance.now() - sinceMs)
  })
  await archive.stop()
  await parts.database.query("DELETE FROM depth_snapshots WHERE kind = 'derived'")

  await using comparing = startTapeline(['verify', '--archive', '--against-tables', '--json'], { env })
  await comparing.assertExit(0)
  const compared = JSON.parse(comparing.output())
  assert.deepEqual(compared.differences, [])
  assert.equal(compared.rows, 2 * (recorded.diffs.length + 1 + recorded.quotes.length) - 1)

  const reader = await ArchiveReader.open({ url: env.ARCHIVE_URL, memoryBytes: 256 << 20, tempFolder: null })
  stack.defer(() => reader.close())
  await reader.read(async (snapshot) => {
    // Level by level, which the command leaves out.
    for (const [table, { name, columns }] of [
      ['depth_updates', ARCHIVE_TABLES.depth],
      ['depth_snapshots', ARCHIVE_TABLES.depthSnapshot],
    ] as const) {
      const figures = await reader.duckDb.rows<Record<'date' | 'symbol' | 'hash', string> & { rows: bigint }>(
        `SELECT strftime(${columns[0]?.name}, '%Y-%m-%d') AS date, symbol, count(*) AS rows,
           sum(${rowHash('duckDb', { columns })})::VARCHAR AS hash
         FROM (${await snapshot.relation(name)}) GROUP BY date, symbol ORDER BY date, symbol`,
      )
      const dates = [...new Set(figures.map(({ date }) => date))]
      const stored = await Promise.all(dates.map((date) => dayRows(parts.database, table, date)))
      assert.deepEqual(
        stored.flatMap((rows) => rows.toSorted((one, other) => (one.symbol < other.symbol ? -1 : 1))),
        figures.map(({ rows, hash, ...of }) => ({
          table: name,
          ...of,
          rows: Number(rows),
          hash: BigInt(hash),
        })),
      )
    }
    const [inArchive] = await reader.duckDb.rows<{ diffs: bigint; joined: bigint }>(
      `${CHAIN} (${await snapshot.relation('depth')}) AS depth WHERE symbol = 'BTCUSDT') AS ids) AS diff`,
    )
    const { rows } = await parts.database.query<{ diffs: string; joined: string }>(
      `${CHAIN} depth_updates WHERE symbol = 'BTCUSDT') AS ids) AS diff`,
    )
    for (const chain of [inArchive, ...rows])
      assert.deepEqual([Number(chain?.diffs), Number(chain?.joined)], [3451, 3450])

    let known = 0
    for (let at = 10; at < recorded.diffs.length; at += 400) {
      const { eventTimeUs: us, lastUpdateId } = recorded.diffs[at] ?? assert.fail()
      const instant: Instant = { kind: 'event time', us }
      const stored = await bookAt(new StoredBooks(parts.database, 'BTCUSDT'), instant, 1)
      assert.deepEqual(
        await bookAt(new ArchivedBooks(reader.duckDb, snapshot, 'BTCUSDT'), instant, 1),
        stored,
      )
      const quote = recorded.quotes.findLast(({ updateId }) => updateId <= lastUpdateId)
      if (stored.kind === 'refused') {
        assert.equal(stored.reason, 'outside the horizon')
        continue
      }
      const top = [stored.bids, stored.asks].flatMap(({ levels: [best] }) => [best?.price, best?.quantity])
      const expected = [quote?.bidPrice, quote?.bidQuantity, quote?.askPrice, quote?.askQuantity]
      assert.deepEqual(top.map(Number), expected.map(Number), isoOfUs(us))
      known++
    }
    assert.equal(known, 9)
  })

  for (const store of [[], ['--archive']]) {
    await using auditing = startTapeline(['verify', '--json', ...store], { env })
    await auditing.assertExit(1)
    const report = REPORT.parse(JSON.parse(auditing.output()))
    assert.deepEqual(
      report.findings
        .filter(({ severity }) => severity === 'failure')
        .map(({ symbol, kind, count }) => [symbol, kind, count]),
      [[COPY, 'top', 1]],
      JSON.stringify(report.findings),
    )
    const of = (symbol: string) => report.books.find((book) => book.symbol === symbol) ?? assert.fail(symbol)
    const { changes, comparedTops, unknownTops } = of('BTCUSDT')
    assert.deepEqual([changes, comparedTops, unknownTops], [3451, 3448, 3])
    assert.equal(of(COPY).changes, 3451)
  }
})
