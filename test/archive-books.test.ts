import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ArchivedBooks } from '../src/foundation/archive/archived-books.ts'
import { type BookStore, bookAt, type Instant } from '../src/foundation/order-book/book-at.ts'
import type { Anchor, BookDiff, DiffKey } from '../src/foundation/order-book/book-rows.ts'
import type { Levels } from '../src/foundation/order-book/level-columns.ts'
import { OrderBook } from '../src/foundation/order-book/order-book.ts'
import { decimalText } from '../src/foundation/order-book/scaled-units.ts'
import { type ArchiveParts, createArchive, MIDNIGHT_MS } from './support/archive-parts.ts'
import { diffOf, type Pair, snapshotOf } from './support/book-rows.ts'
import { bookStore } from './support/book-store.ts'
import { RECORDINGS, type RecordedEvent, recordingOf } from './support/recorded-books.ts'
import { NO_RECORDED_DEPTH, recordedDepth } from './support/recorded-depth.ts'
import { eventValue, record } from './support/records.ts'
import { endsOf, HISTORIES, TrueBook } from './support/true-book.ts'

const SEED = Number(process.env['TAPELINE_TEST_SEED'] ?? 19)

/** So that a history is on both sides of midnight. */
const BEGIN_US = (MIDNIGHT_MS - 40) * 1000

function pairsOf({ count, prices, quantities, priceScale, quantityScale }: Levels): Pair[] {
  return Array.from({ length: count }, (_, i) => [
    decimalText(prices[i] ?? 0, priceScale),
    decimalText(quantities[i] ?? 0, quantityScale),
  ])
}

function diffMessage({
  firstUpdateId: U,
  lastUpdateId: u,
  eventTimeUs,
  receivedUs,
  epoch,
  ...levels
}: BookDiff) {
  const [b, a] = [levels.bids, levels.asks].map(pairsOf)
  const value = eventValue('depth', { E: eventTimeUs / 1000, U, u, b, a, ingestion_timestamp_us: receivedUs })
  return record(value, null, { epoch: String(epoch) })
}

function snapshotMessage({ lastUpdateId, receivedUs, epoch, bids, asks }: Anchor, limit: number) {
  const levels = { bids: pairsOf(bids), asks: pairsOf(asks) }
  const value = eventValue('depthSnapshot', {
    lastUpdateId,
    limit,
    ...levels,
    ingestion_timestamp_us: receivedUs,
  })
  return record(value, null, { epoch: String(epoch) })
}

/** The same rows at later times, which the archive takes. */
function moved<Row extends { readonly receivedUs: number }>(row: Row): Row {
  return { ...row, receivedUs: row.receivedUs + BEGIN_US }
}

function movedDiff(diff: BookDiff): BookDiff {
  return { ...moved(diff), eventTimeUs: diff.eventTimeUs + BEGIN_US }
}

/** Books of the archive and of memory must be the same, or refused with the same words. */
async function assertSameBooks(
  archive: ArchiveParts,
  store: BookStore,
  instants: readonly Instant[],
  Books = ArchivedBooks,
) {
  const reader = await archive.openReader()
  await reader.read(async (snapshot) => {
    for (const instant of instants) {
      const archived = new Books(reader.duckDb, snapshot, 'BTCUSDT')
      assert.deepEqual(await bookAt(archived, instant), await bookAt(store, instant), JSON.stringify(instant))
    }
  })
}

test('O12–O15 books of segments and of published days are those of the same rows in memory', () =>
  fc.assert(
    fc.asyncProperty(HISTORIES, fc.uniqueArray(fc.nat(40), { maxLength: 3 }), async (one, lost) => {
      const truth = new TrueBook(one.orders)
      const { lastUpdateId } = truth
      const diffs = [one.cuts, one.otherCuts.slice(0, 4)]
        .flatMap((lengths) => truth.diffs(endsOf(lengths, lastUpdateId)))
        .filter((_, index) => !lost.includes(index))
        .map(movedDiff)
      const anchors = [one.anchorAt, one.anchorAt / 3].map((part) =>
        moved(truth.snapshot(Math.max(1, Math.floor(part * lastUpdateId)), one.limit)),
      )
      const instants = Array.from({ length: 8 }, (_, i): Instant => {
        const updateId = Math.floor(((i + 1) * lastUpdateId) / 8)
        if (i % 3 === 0) return { kind: 'update id', epoch: null, updateId }
        return { kind: i % 3 === 1 ? 'event time' : 'receipt', us: BEGIN_US + updateId * 1000 + 200 }
      })
      await using archive = await createArchive()
      const messages = [
        ...diffs.map(diffMessage),
        ...anchors.map((anchor) => snapshotMessage(anchor, one.limit)),
      ]
      const half = Math.floor(diffs.length / 2)
      await archive.add('depth', messages.slice(0, half))
      const store = bookStore(uniqueIn(diffs), anchors)
      if (one.limit % 2 === 0) await archive.publish()
      await archive.add('depth', messages.slice(half))
      await assertSameBooks(archive, store, instants)
      await archive.publish()
      await assertSameBooks(archive, store, instants)
    }),
    { numRuns: 12, seed: SEED, endOnFailure: true },
  ))

/** Counts how its books were found. */
class CountedBooks extends ArchivedBooks {
  static readonly found = { reduced: 0, refused: 0, replayed: 0 }

  override async bookAfter(anchor: Anchor, last: DiffKey) {
    const after = await super.bookAfter(anchor, last)
    const how = after === null ? 'replayed' : after instanceof OrderBook ? 'reduced' : 'refused'
    CountedBooks.found[how]++
    return after
  }
}

test('O5, O12–O15 books of random recordings, crossed ones too, are those of the same rows in memory', async (t) => {
  await fc.assert(
    fc.asyncProperty(RECORDINGS, async (random) => {
      const { early, late, spans } = recordingOf(random)
      const all = [...early, ...late]
      const store = bookStore(
        all.flatMap(({ row }) => ('firstUpdateId' in row ? [row] : [])),
        all.flatMap(({ row }) => ('firstUpdateId' in row ? [] : [row])),
      )
      const instants = spans.flatMap(({ fromMs, toMs }) =>
        [1, 2, 3, 4].map((i): Instant => {
          const us = Math.floor(fromMs + ((toMs - fromMs) * i) / 4) * 1000 + 200 * (i % 2)
          const updateId = Math.floor((us / 1000 - fromMs) % 400)
          return i % 2 === 0 ? { kind: 'event time', us } : { kind: 'update id', epoch: null, updateId }
        }),
      )
      await using archive = await createArchive()
      const messages = (events: readonly RecordedEvent[]) =>
        events.map(({ value, row }) => record(value, null, { epoch: String(row.epoch) }))
      await archive.add('depth', messages(early))
      // Some that are archived already.
      await archive.add('depth', messages([...late, ...early.slice(0, 3)]))
      await assertSameBooks(archive, store, instants, CountedBooks)
      await archive.publish()
      await assertSameBooks(archive, store, instants, CountedBooks)
    }),
    { numRuns: 12, seed: SEED, endOnFailure: true },
  )
  t.diagnostic(`TAPELINE_TEST_SEED=${SEED} ${JSON.stringify(CountedBooks.found)}`)
  assert.ok(CountedBooks.found.reduced > CountedBooks.found.replayed)
})

/** Two connections may have cut a diff alike. */
function uniqueIn(diffs: readonly BookDiff[]): BookDiff[] {
  return [...new Map(diffs.map((diff) => [`${diff.firstUpdateId} ${diff.lastUpdateId}`, diff])).values()]
}

test('O12 prices and quantities of any size and number of decimals are exact', async () => {
  await using archive = await createArchive()
  const bids: Pair[] = [
    ['0.00001234', '999999999999.5'],
    ['0.000012', '900719925474'],
  ]
  const anchor = moved(snapshotOf(5, bids, [['0.5', '1']], { limit: 2 }))
  const diffs = [
    diffOf(1, 5, [], []),
    diffOf(6, 9, [['0.00001233', '123456789012.25']], []),
    // In a later row the quantities need more decimals.
    diffOf(10, 12, [], [['0.4', '0.125']]),
  ].map(movedDiff)
  await archive.add('depth', [...diffs.map(diffMessage), snapshotMessage(anchor, 2)])
  await archive.publish()
  await assertSameBooks(archive, bookStore(diffs, [anchor]), [
    { kind: 'event time', us: BEGIN_US + 9000 },
    { kind: 'event time', us: BEGIN_US + 12_000 },
  ])
})

test('O12 a diff whose event time is before that of an earlier one is in the book', async () => {
  await using archive = await createArchive()
  const bids: Pair[] = [['99', '1']]
  const anchor = moved(snapshotOf(5, bids, [['101', '1']], { limit: 1000 }))
  const diffs = [
    diffOf(1, 5, [], []),
    diffOf(6, 9, [['98', '1']], []),
    diffOf(10, 12, [['97', '1']], [], { eventTimeUs: 7000 }),
    diffOf(13, 14, [['96', '1']], []),
  ].map(movedDiff)
  await archive.add('depth', [...diffs.map(diffMessage), snapshotMessage(anchor, 1000)])
  const store = bookStore(diffs, [anchor])
  for (const _ of [1, 2]) {
    await assertSameBooks(archive, store, [
      { kind: 'event time', us: BEGIN_US + 14_000 },
      { kind: 'event time', us: BEGIN_US + 9500 },
      { kind: 'update id', epoch: 0, updateId: 12 },
    ])
    await archive.publish()
  }
})

test('O12 a receipt clock that is hours ahead, before midnight, hides no diff', async () => {
  await using archive = await createArchive()
  const at = (us: number) => (MIDNIGHT_MS - 1_800_000) * 1000 + us
  const ahead = 2 * 3_600_000_000
  const shifted = <Row extends { readonly receivedUs: number }>(row: Row, us: number): Row => ({
    ...row,
    receivedUs: at(us) + ahead,
  })
  const anchor = shifted(snapshotOf(5, [['99', '1']], [['101', '1']], { limit: 1000 }), 5000)
  const diffs = [
    shifted(diffOf(1, 5, [], [], { eventTimeUs: at(5000) }), 5000),
    shifted(diffOf(6, 9, [['99', '7']], [], { eventTimeUs: at(9000) }), 9000),
    shifted(diffOf(10, 12, [['98', '7']], [], { eventTimeUs: at(12_000) }), 12_000),
  ]
  await archive.add('depth', [...diffs.map(diffMessage), snapshotMessage(anchor, 1000)])
  await assertSameBooks(archive, bookStore(diffs, [anchor]), [{ kind: 'event time', us: at(12_000) }])
})

test('O12 a diff that is in one or several segments twice is applied once and whole', async () => {
  await using archive = await createArchive()
  const levels: Pair[] = [
    ['99', '1'],
    ['98', '1'],
  ]
  const anchor = moved(snapshotOf(5, levels, [['101', '1']]))
  const changes = levels.map(([price]): Pair => [price, '7'])
  const diffs = [diffOf(1, 5, [], []), diffOf(6, 9, changes, []), diffOf(10, 12, [], [])].map(movedDiff)
  const messages = diffs.map(diffMessage)
  await archive.add('depth', [...messages, ...messages, snapshotMessage(anchor, 1000)])
  await archive.add('depth', messages)
  await assertSameBooks(archive, bookStore(diffs, [anchor]), [{ kind: 'event time', us: BEGIN_US + 12_000 }])
})

/** Diffs after a snapshot with two levels a side, after which something is not as it usually is. */
const IRREGULAR = {
  'O5 a book that was crossed when a side had its best price widens nothing': [
    diffOf(6, 9, [['105', '1']], []),
    diffOf(10, 12, [['105', '0']], []),
  ],
  'O1 of two diffs with the same last id the longer one counts': [
    diffOf(6, 12, [['98.5', '1']], []),
    diffOf(
      8,
      12,
      [
        ['98.5', '7'],
        ['98.2', '1'],
      ],
      [],
    ),
  ],
  'O13 a diff after a hole that a longer one closes does not count': [
    diffOf(10, 11, [['98.5', '5']], []),
    diffOf(6, 12, [['98.2', '1']], []),
  ],
}

for (const [title, after] of Object.entries(IRREGULAR))
  test(title, async () => {
    await using archive = await createArchive()
    const bids: Pair[] = [
      ['99', '1'],
      ['98', '1'],
    ]
    const asks: Pair[] = [
      ['101', '1'],
      ['102', '1'],
    ]
    const anchor = moved(snapshotOf(5, bids, asks, { limit: 2 }))
    const diffs = [diffOf(1, 5, [], []), ...after].map(movedDiff)
    await archive.add('depth', [...diffs.map(diffMessage), snapshotMessage(anchor, 2)])
    const instant = { kind: 'event time', us: BEGIN_US + 12_000 } as const
    const store = bookStore(diffs, [anchor])
    assert.equal((await bookAt(store, instant)).kind, 'book')
    await assertSameBooks(archive, store, [instant])
    await archive.publish()
    await assertSameBooks(archive, store, [instant])
  })

test('O12 the recorded frames: the book at any diff is that of memory', {
  skip: NO_RECORDED_DEPTH,
}, async () => {
  const { diffs, anchor } = recordedDepth()
  await using archive = await createArchive()
  await archive.add('depth', [...diffs.map(diffMessage), snapshotMessage(anchor, 1000)])
  const instants = [3, 1800, 3450].map(
    (at): Instant => ({ kind: 'event time', us: diffs[at]?.eventTimeUs ?? 0 }),
  )
  await archive.publish()
  await assertSameBooks(archive, bookStore(diffs, [anchor]), instants)
})
