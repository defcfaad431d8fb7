import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isoOfUs } from '../src/foundation/market/time-unit.ts'
import type { Quote } from '../src/foundation/order-book/book-check.ts'
import type { Anchor, BookDiff } from '../src/foundation/order-book/book-rows.ts'
import { packColumns } from '../src/foundation/order-book/level-columns.ts'
import { OrderBook } from '../src/foundation/order-book/order-book.ts'
import { packedRows } from '../src/tools/verify/depth-rows.ts'
import { renderAudit } from '../src/tools/verify/report.ts'
import { REPORT, type Report } from '../src/tools/verify/report-types.ts'
import { EVERYTHING } from '../src/tools/verify/scope.ts'
import { compareStores, type StoreComparison } from '../src/tools/verify/store-comparison.ts'
import { archiveOf } from './support/archived-tables.ts'
import { deadLetterSql, failuresOf, gapSql, marketOfSuite, outageSql } from './support/audited-market.ts'
import { levelsOf, type Pair } from './support/book-rows.ts'
import { anchorSql, diffSql, keyframeSql, quoteSql } from './support/depth-sql.ts'
import { endsOf, type Order, TrueBook } from './support/true-book.ts'

/** 1 January 2026; an update every 50 ms. */
const BEGIN_US = Date.UTC(2026, 0, 1) * 1000
const usOf = (id: number) => BEGIN_US + id * 50_000
const at = (id: number) => isoOfUs(usOf(id))
const UPDATES = 600

/** Bids at 10 to 19, asks at 21 to 30, whose quantities change in an order that looks random. */
function orders(): Order[] {
  let state = 7
  const next = (below: number) => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
    return Math.floor(state / 65_536) % below
  }
  return Array.from({ length: UPDATES }, () => {
    const side = next(2) === 0 ? 'bids' : 'asks'
    return { side, price: (side === 'bids' ? 10 : 21) + next(10), quantity: next(5) }
  })
}

const truth = new TrueBook(orders())
const received = (diff: BookDiff): BookDiff => ({
  ...diff,
  eventTimeUs: usOf(diff.lastUpdateId),
  receivedUs: usOf(diff.lastUpdateId) + 5000,
})
const DIFFS = truth
  .diffs(endsOf([5, ...Array.from({ length: 200 }, (_, i) => 2 + (i % 4))], UPDATES))
  .map(received)
const snapshotAt = (id: number, limit: number): Anchor => ({
  ...truth.snapshot(id, limit),
  receivedUs: usOf(id) + 20_000,
})
const ANCHORS = [snapshotAt(36, 5), snapshotAt(251, 7), snapshotAt(430, 6)]
const QUOTES = truth.quotes()
const LAST = DIFFS.at(-1)?.lastUpdateId ?? 0

const market = marketOfSuite([
  ...DIFFS.map((diff) => diffSql(diff)),
  ...ANCHORS.map(anchorSql),
  ...QUOTES.map((quote) => quoteSql(quote, usOf(quote.updateId) + 3000)),
])

const diffAt = (id: number) =>
  DIFFS.find(({ firstUpdateId, lastUpdateId }) => firstUpdateId <= id && id <= lastUpdateId) ??
  assert.fail(`no diff has ${id}`)
const removed = (diff: BookDiff) => `DELETE FROM depth_updates WHERE last_update_id = ${diff.lastUpdateId}`
const hex = (pairs: readonly Pair[]) => `'\\x${Buffer.from(packColumns(levelsOf(pairs))).toString('hex')}'`
const withBids = (diff: BookDiff, pairs: readonly Pair[]) =>
  `UPDATE depth_updates SET bids = ${hex(pairs)} WHERE last_update_id = ${diff.lastUpdateId}`
const removedQuote = ({ updateId }: Quote) => `DELETE FROM book_ticker WHERE update_id = ${updateId}`

/** The book after a diff. */
function bookAfter(id: number): OrderBook {
  const book = new OrderBook()
  for (const anchor of ANCHORS.slice(0, 1)) book.reset(anchor)
  for (const diff of DIFFS) if (diff.lastUpdateId <= id) book.apply(diff)
  return book
}

/** The quotes of the detectable class. */
function detectable(): Quote[] {
  const topOf = ({ updateId: _, ...top }: Quote) => JSON.stringify(top)
  const found = DIFFS.flatMap((diff) => {
    if (diff.lastUpdateId < 36) return []
    const index = QUOTES.findLastIndex(({ updateId }) => updateId <= diff.lastUpdateId)
    const [before, last] = [QUOTES[index - 1], QUOTES[index]]
    return before !== undefined && last !== undefined && topOf(before) !== topOf(last) ? [last] : []
  })
  return [...new Set(found)]
}

const bookOf = ({ books: [book] }: Report) => book ?? assert.fail('the report has no book')

/** Bids of a diff with another quantity at one price. */
function altered(diff: BookDiff, isTop: boolean): { sql: string; price: string } {
  const { bids } = bookAfter(diff.lastUpdateId)
  const best = bids.priceAt(bids.bestIndex)
  const pairs = [...Array(diff.bids.count).keys()].map(
    (i): Pair => [String(diff.bids.prices[i]), String(diff.bids.quantities[i])],
  )
  const index = pairs.findIndex(
    ([price]) => (Number(price) === best) === isTop && (isTop || Number(price) < best),
  )
  const pair = pairs[index] ?? assert.fail('the diff has no such level')
  return { sql: withBids(diff, pairs.with(index, [pair[0], '9'])), price: pair[0] }
}

/** The first diff from an id on whose bids have a level like this that no later diff before `until` changes. */
function alterable(fromId: number, untilId: number, isTop: boolean): BookDiff {
  const found = DIFFS.find((diff) => {
    if (diff.firstUpdateId < fromId || diff.lastUpdateId >= untilId) return false
    const { bids } = bookAfter(diff.lastUpdateId)
    const best = bids.bestIndex < 0 ? -1 : bids.priceAt(bids.bestIndex)
    const later = DIFFS.filter((one) => one.firstUpdateId > diff.lastUpdateId && one.firstUpdateId <= untilId)
    return [...Array(diff.bids.count).keys()].some((i) => {
      const price = diff.bids.prices[i] ?? 0
      const isChanged = later.some(({ bids: { prices, count } }) => prices.subarray(0, count).includes(price))
      return isTop
        ? price === best
        : price < best && price >= 15 && (diff.bids.quantities[i] ?? 0) > 0 && !isChanged
    })
  })
  return found ?? assert.fail('no diff is like this')
}

test('finds nothing in clean order books, in both stores, and says what it compared', async () => {
  const report = await market.auditAfter([])
  assert.deepEqual(report.findings, [])
  assert.equal(report.verdict, 'clean')
  assert.deepEqual(REPORT.parse(JSON.parse(JSON.stringify(report))), report)
  const book = bookOf(report)
  assert.equal(book.changes, DIFFS.length)
  assert.deepEqual([book.comparedSnapshots, book.comparedKeyframes], [2, 0])
  // Nothing is compared after the last quote, so its absence would not show.
  assert.equal(book.detectableQuotes, detectable().filter((quote) => quote !== QUOTES.at(-1)).length)
  const afterLast = DIFFS.filter(({ receivedUs }) => receivedUs > usOf(QUOTES.at(-1)?.updateId ?? 0) + 3000)
  assert.equal(book.comparedTops + book.unknownTops, DIFFS.length - afterLast.length)
  assert.ok(book.comparedTops > DIFFS.length - 20 && book.comparedLevels > 10, JSON.stringify(book))
  const [sequence] = report.sequences
  assert.deepEqual(
    [sequence?.eventType, sequence?.rows, sequence?.firstId, sequence?.lastId, sequence?.missing],
    ['depth', DIFFS.length, 1, LAST, 0],
  )
  assert.match(renderAudit(report), /Order books compared.*\nsymbol .* detectable .*\nBTCUSDT +depth .* %/)
})

test('finds each dropped diff by its ids, unless the ledger or a dead letter names them', async () => {
  const [one, other] = [diffAt(100), diffAt(300)]
  const ids = ({ firstUpdateId, lastUpdateId }: BookDiff) => `${firstUpdateId}..${lastUpdateId}`
  const found = await market.auditAfter([removed(one), removed(other)])
  const count = [one, other].reduce((sum, diff) => sum + diff.lastUpdateId - diff.firstUpdateId + 1, 0)
  assert.deepEqual(failuresOf(found), [
    `continuity: missing, BTCUSDT depth, ${count}: ${ids(one)} ${ids(other)}`,
  ])
  const { firstUpdateId: from, lastUpdateId: to } = one
  const letter = `{"e":"depthUpdate","s":"BTCUSDT","U":${other.firstUpdateId},"u":${other.lastUpdateId},"b":[["x"`
  const explained = [
    ...[removed(one), removed(other), gapSql('unrecoverable', from, to, { eventType: 'depth' })],
    deadLetterSql(1, `${letter},"1"]],"a":[]}`),
  ]
  const clean = await market.auditAfter(explained)
  assert.deepEqual(failuresOf(clean), [])
  assert.ok(bookOf(clean).unknownTops > bookOf(found).unknownTops - 1)
})

test('repeats, overlaps and swapped deliveries leave no finding', async () => {
  const [one, next] = [diffAt(200), diffAt(diffAt(200).lastUpdateId + 1)]
  const both = received(truth.diff(one.firstUpdateId, next.lastUpdateId))
  const audit = await market.auditAfter([
    diffSql({ ...one, eventTimeUs: one.eventTimeUs + 1000 }),
    diffSql(both),
    `UPDATE depth_updates SET ingestion_timestamp = '${isoOfUs(next.receivedUs + 1)}' WHERE last_update_id = ${one.lastUpdateId}`,
  ])
  assert.deepEqual(audit.findings, [])
})

test('finds an altered level at the top by the quotes, as one window with its number', async () => {
  const diff = alterable(100, 240, true)
  const audit = await market.auditAfter([altered(diff, true).sql])
  const found = audit.findings.find(({ kind }) => kind === 'top')
  assert.equal(found?.examples[0]?.from, diff.lastUpdateId)
  assert.equal(found?.severity, 'failure')
  assert.match(found?.summary ?? '', /^window .*only \d+\.\d % of missing quotes show/)
  assert.match(
    found?.examples[0]?.detail ?? '',
    /wrong top.*book .* × 9 \/ .*, quote \d+ \d+ × \d+ \/ \d+ × \d+$/,
  )
})

test('finds an altered level elsewhere at the next snapshot', async () => {
  const diff = alterable(100, 251, false)
  const { sql, price } = altered(diff, false)
  const audit = await market.auditAfter([sql])
  assert.deepEqual(failuresOf(audit), ['order book: snapshot, BTCUSDT depth, 1: 251'])
  const detail = audit.findings[0]?.examples[0]?.detail ?? ''
  assert.match(detail, new RegExp(`^1 level, the first: bids ${price}: book 9, snapshot \\d$`))
})

test('finds every removed quote of the detectable class, and no other', async () => {
  const all = detectable()
  assert.ok(all.length > 50, String(all.length))
  for (const [i, quote] of all.entries()) {
    const audit = await (i % 20 === 5 ? market.auditAfter : market.auditTablesAfter)([removedQuote(quote)])
    const last = quote === QUOTES.at(-1)
    assert.deepEqual(
      audit.findings.map(({ kind, count }) => `${kind} ${count}`),
      last ? [] : ['top 1'],
      `quote ${quote.updateId}`,
    )
  }
  const others = QUOTES.slice(1).filter((quote) => !all.includes(quote))
  for (const quote of others.filter((_, i) => i % 5 === 0))
    assert.deepEqual((await market.auditTablesAfter([removedQuote(quote)])).findings, [])
})

test('a window without quotes in the ledger, a quote that is a dead letter, and the end of quotes explain them', async () => {
  const quote = detectable()[20] ?? assert.fail()
  const gone = (from: number, to: number) =>
    `DELETE FROM book_ticker WHERE update_id BETWEEN ${from} AND ${to}`
  const outage = await market.auditAfter([gone(200, 240), outageSql(at(199), at(241))])
  assert.deepEqual(failuresOf(outage), [])
  assert.ok(bookOf(outage).comparedTops < DIFFS.length - 20)
  assert.notDeepEqual(failuresOf(await market.auditTablesAfter([gone(200, 240)])), [])
  const letter = `{"u":${quote.updateId},"s":"BTCUSDT","b":"x"}`
  assert.deepEqual(failuresOf(await market.auditAfter([removedQuote(quote), deadLetterSql(1, letter)])), [])
  assert.deepEqual(failuresOf(await market.auditAfter([gone(300, UPDATES)])), [])
  assert.deepEqual(failuresOf(await market.auditAfter([gone(0, UPDATES)])), [])
})

test('finds a crossed book, and a falling event time', async () => {
  const { lastUpdateId } = diffAt(400)
  const crossed = await market.auditAfter([
    withBids(diffAt(400), [
      ['40', '1'],
      ['9', '1'],
    ]),
    'DELETE FROM book_ticker',
  ])
  assert.ok(
    failuresOf(crossed).includes(`order book: crossed, BTCUSDT depth, 1: ${lastUpdateId}`),
    failuresOf(crossed).join(),
  )
  const falling = await market.auditAfter([
    `UPDATE depth_updates SET event_time = event_time - interval '1 second' WHERE last_update_id = ${lastUpdateId}`,
  ])
  assert.deepEqual(
    falling.findings.map(({ check, kind, severity, count }) => [check, kind, severity, count].join(' ')),
    ['order book backwards notice 1'],
  )
})

test('finds an altered snapshot', async () => {
  const [, anchor] = ANCHORS
  const levels = anchor?.asks ?? assert.fail()
  const pairs = [...Array(levels.count).keys()].map(
    (i): Pair => [String(levels.prices[i]), String(levels.quantities[i])],
  )
  const [price = ''] = pairs[2] ?? []
  const audit = await market.auditAfter([
    `UPDATE depth_snapshots SET asks = ${hex(pairs.with(2, [price, '8']))} WHERE last_update_id = 251`,
  ])
  assert.ok(
    failuresOf(audit).includes('order book: snapshot, BTCUSDT depth, 1: 251'),
    failuresOf(audit).join(),
  )
})

test('finds a wrong keyframe; a right one is no finding, and neither is evidence', async () => {
  const { lastUpdateId } = diffAt(200)
  const [anchor = assert.fail()] = ANCHORS
  const state = bookAfter(lastUpdateId).state()
  const keyframe: Anchor = {
    ...state,
    receivedUs: usOf(lastUpdateId) + 5000,
    derivedFrom: { epoch: 0, lastUpdateId: anchor.lastUpdateId, receivedUs: anchor.receivedUs },
  }
  const right = await market.auditTablesAfter([keyframeSql(keyframe, usOf(lastUpdateId))])
  assert.deepEqual(right.findings, [])
  assert.equal(bookOf(right).comparedKeyframes, 1)
  const quantities = keyframe.bids.quantities.map((quantity) => quantity + 1)
  const wrong = await market.auditTablesAfter([
    keyframeSql({ ...keyframe, bids: { ...keyframe.bids, quantities } }, usOf(lastUpdateId)),
  ])
  assert.deepEqual(failuresOf(wrong), [`order book: keyframe, BTCUSDT depth, 1: ${lastUpdateId}`])
})

test('a range begins with the snapshot before it, and reports nothing outside', async () => {
  const scope = { symbols: ['BTCUSDT'], fromMs: usOf(200) / 1000, toMs: usOf(400) / 1000 }
  const own = DIFFS.filter(({ eventTimeUs }) => eventTimeUs >= usOf(200) && eventTimeUs < usOf(400))
  const clean = await market.auditAfter([], { scope })
  assert.deepEqual(clean.findings, [])
  assert.equal(bookOf(clean).changes, own.length)
  assert.ok(bookOf(clean).comparedTops > own.length - 5, 'the book is known from the start')
  assert.equal(bookOf(clean).comparedSnapshots, 1)
  const outside = [removedQuote(detectable()[3] ?? assert.fail()), removed(diffAt(500))]
  assert.deepEqual((await market.auditAfter(outside, { scope })).findings, [])
  const inside = await market.auditAfter([removed(diffAt(300))], { scope })
  assert.deepEqual(failuresOf(inside).length, 1)
})

test('is clean when only a part of the time has order books, and without any', async () => {
  const late = [
    'DELETE FROM depth_updates WHERE last_update_id <= 245',
    'DELETE FROM depth_snapshots WHERE last_update_id < 250',
  ]
  assert.deepEqual((await market.auditAfter(late)).findings, [])
  const none = await market.auditAfter(['TRUNCATE depth_updates', 'TRUNCATE depth_snapshots'])
  assert.deepEqual([none.verdict, none.books, none.findings], ['clean', [], []])
  const unusable = await market.auditAfter(['DELETE FROM depth_updates WHERE last_update_id <= 300'])
  assert.deepEqual(unusable.findings, [])
  assert.match(renderAudit(unusable), /snapshots? of the order book that no change continues/)
})

test('checks the books of each epoch, and of each symbol', async () => {
  const again = DIFFS.map((diff) => ({
    ...diff,
    epoch: 1,
    eventTimeUs: diff.eventTimeUs + 3_600_000_000,
    receivedUs: diff.receivedUs + 3_600_000_000,
  }))
  const audit = await market.auditAfter([
    ...again.map((diff) => diffSql(diff)),
    ...ANCHORS.map((anchor) =>
      anchorSql({ ...anchor, epoch: 1, receivedUs: anchor.receivedUs + 3_600_000_000 }),
    ),
    ...QUOTES.map((quote) => quoteSql(quote, usOf(quote.updateId) + 3000 + 3_600_000_000)),
    ...DIFFS.map((diff) => diffSql(diff, 'ETHUSDT')),
    outageSql(at(UPDATES), '2026-01-01T01:00:00Z', 'reset'),
    `${removedQuote(detectable()[9] ?? assert.fail())} AND ingestion_timestamp > '2026-01-01 01:00'`,
  ])
  assert.deepEqual(
    audit.books.map(({ symbol, epoch, comparedTops }) => `${symbol} ${epoch} ${comparedTops > 100}`),
    ['BTCUSDT 0 true', 'BTCUSDT 1 true', 'ETHUSDT 0 false'],
  )
  assert.deepEqual(
    audit.findings.map(({ kind, epoch, count }) => [kind, epoch, count].join(' ')),
    ['top 1 1'],
  )
})

test('says the same however many changes it reads at once', async () => {
  const gone = detectable().filter((_, i) => i % 4 === 1)
  const changes = [
    ...gone.map(removedQuote),
    removed(diffAt(300)),
    altered(alterable(100, 251, false), false).sql,
  ]
  const expected = await market.auditTablesAfter(changes)
  assert.ok(expected.findings.length > 2)
  for (const partChanges of [1, 7]) {
    const found = await market.auditTablesAfter(changes, (connection) => ({
      depthRows: { ...packedRows(connection), partChanges },
    }))
    assert.deepEqual(
      [found.findings, found.books, found.notChecked],
      [expected.findings, expected.books, expected.notChecked],
    )
  }
})

test('a clock that was set back makes no finding of an order book', async () => {
  const back = (table: string, id: string) =>
    `UPDATE ${table} SET ingestion_timestamp = ingestion_timestamp + interval '30 minutes' WHERE ${id} <= 300`
  const changes = [
    back('depth_updates', 'last_update_id'),
    back('depth_snapshots', 'last_update_id'),
    back('book_ticker', 'update_id'),
  ]
  for (const partChanges of [3, 5000]) {
    const audit = await market.auditTablesAfter(changes, (connection) => ({
      depthRows: { ...packedRows(connection), partChanges },
    }))
    assert.deepEqual(failuresOf(audit), [])
    assert.ok(bookOf(audit).comparedTops > DIFFS.length - 20)
  }
})

test('shows at most so many cases, and counts all', async () => {
  const gone = detectable().filter((_, i) => i % 3 === 0)
  const audit = await market.auditAfter(gone.map(removedQuote), { limit: 2 })
  const found = audit.findings.find(({ kind }) => kind === 'top')
  assert.equal(found?.examples.length, 2)
  assert.ok((found?.count ?? 0) > 5)
})

test('both stores are compared by the ids and times of changes and snapshots', async () => {
  const undo = new Error('undo')
  const compared = async (change: string): Promise<StoreComparison> => {
    let found: StoreComparison | undefined
    const work = market.database.transaction(async (connection) => {
      await using archive = await archiveOf(connection)
      const reader = await archive.openReader()
      await connection.query(change)
      found = await reader.read((snapshot) =>
        compareStores(connection, reader, snapshot, EVERYTHING, Date.UTC(2026, 0, 3)),
      )
      throw undo
    })
    await assert.rejects(work, undo)
    return found ?? assert.fail('nothing was compared')
  }
  const equal = await compared('SELECT 1')
  assert.deepEqual(equal.differences, [])
  assert.equal(equal.rows, DIFFS.length + ANCHORS.length + QUOTES.length)
  const places = async (change: string) =>
    (await compared(change)).differences.map(({ table, inTables, inArchive }) => [
      table,
      inTables - inArchive,
    ])
  assert.deepEqual(await places(removed(diffAt(100))), [['depth', -1]])
  assert.deepEqual(await places('DELETE FROM depth_snapshots WHERE last_update_id = 251'), [
    ['depth_snapshots', -1],
  ])
  const moved = `UPDATE depth_updates SET ingestion_timestamp = now() WHERE last_update_id = ${LAST}`
  assert.deepEqual(await places(moved), [['depth', 0]])
})
