import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { ArchiveKeyframes } from '../src/archive/keyframes.ts'
import { ArchivedBooks } from '../src/foundation/archive/archived-books.ts'
import { keyframesOf, readKeyframe, storeKeyframe } from '../src/foundation/archive/archived-keyframes.ts'
import {
  type BookAt,
  type BookRefusal,
  type BookStore,
  bookAt,
  type Instant,
} from '../src/foundation/order-book/book-at.ts'
import type { Anchor } from '../src/foundation/order-book/book-rows.ts'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import { archivedRows } from '../src/tools/verify/archive-depth.ts'
import { archiveTables } from '../src/tools/verify/archive-tables.ts'
import { EVERYTHING } from '../src/tools/verify/scope.ts'
import { audit } from '../src/tools/verify/verify.ts'
import { type ArchiveParts, createArchive } from './support/archive-parts.ts'
import { AUDIT_OPTIONS, failuresOf } from './support/audited-market.ts'
import type { Pair } from './support/book-rows.ts'
import { bookStore } from './support/book-store.ts'
import { RECORDINGS, type RecordedEvent, recordingOf } from './support/recorded-books.ts'
import { eventValue, record } from './support/records.ts'

const SEED = Number(process.env['TAPELINE_TEST_SEED'] ?? 19)
const SYMBOL = 'BTCUSDT'
const NEVER = new AbortController().signal

async function makeKeyframes({ store, duckDb }: ArchiveParts, everyMs: number): Promise<ArchiveKeyframes> {
  const keyframes = new ArchiveKeyframes(store, duckDb, systemClock(), everyMs)
  await keyframes.round(NEVER)
  return keyframes
}

async function addAll(archive: ArchiveParts, events: readonly RecordedEvent[]): Promise<void> {
  const messages = events.map(({ value, row }) => record(value, null, { epoch: String(row.epoch) }))
  await archive.add('depth', messages)
}

function memoryOf(events: readonly RecordedEvent[]): BookStore {
  return bookStore(
    events.flatMap(({ row }) => ('firstUpdateId' in row ? [row] : [])),
    events.flatMap(({ row }) => ('firstUpdateId' in row ? [] : [row])),
  )
}

/** Without what says from which keyframe a book began. */
function withoutAnchor(answer: BookAt | BookRefusal) {
  return answer.kind === 'book' ? { ...answer, anchor: null } : answer
}

test('books of an archive with keyframes are those of its rows', async (t) => {
  const counts = { made: 0, used: 0 }
  await fc.assert(
    fc.asyncProperty(RECORDINGS, async (random) => {
      const { early, late, spans } = recordingOf(random.slice(0, 1))
      const all = [...early, ...late]
      await using archive = await createArchive()
      await addAll(archive, all)
      const longestMs = Math.max(...spans.map(({ fromMs, toMs }) => toMs - fromMs))
      counts.made += (await makeKeyframes(archive, Math.ceil(longestMs / 4))).made
      const memory = memoryOf(all)
      const reader = await archive.openReader()
      await reader.read(async (snapshot) => {
        for (const { fromMs, toMs } of spans) {
          for (const part of [0.3, 0.5, 0.75, 1]) {
            const instant: Instant = {
              kind: 'event time',
              us: Math.floor(fromMs + (toMs - fromMs) * part) * 1000,
            }
            const archived = await bookAt(new ArchivedBooks(reader.duckDb, snapshot, SYMBOL), instant)
            assert.deepEqual(
              withoutAnchor(archived),
              withoutAnchor(await bookAt(memory, instant)),
              JSON.stringify(instant),
            )
            if (archived.kind === 'book' && archived.anchor.derivedFrom !== null) counts.used++
          }
        }
      })
    }),
    { numRuns: 6, seed: SEED, endOnFailure: true },
  )
  t.diagnostic(`TAPELINE_TEST_SEED=${SEED} ${JSON.stringify(counts)}`)
  assert.ok(counts.used > 5)
})

const at = (id: number) => ({ kind: 'event time', us: Date.UTC(2024, 7, 8, 12) * 1000 + id * 1000 }) as const
const SNAPSHOT_ID = 2
const LAST_ID = 9

/** An archive with a snapshot and diffs after it, one a millisecond. */
async function smallArchive(): Promise<ArchiveParts> {
  const archive = await createArchive()
  const bid = (id: number): Pair => ['1.5', String(id)]
  const event = (type: 'depth' | 'depthSnapshot', id: number, fields: object) => {
    const times = { ingestion_timestamp: at(id).us / 1000, ingestion_timestamp_us: at(id).us + 500 }
    return record(eventValue(type, { ...fields, ...times }), null, { epoch: '0' })
  }
  const diffs = Array.from({ length: LAST_ID }, (_, i) => i + 1).map((id) =>
    event('depth', id, { U: id, u: id, E: at(id).us / 1000, b: [bid(id)], a: [['2.5', '1']] }),
  )
  const levels = { bids: [bid(SNAPSHOT_ID)], asks: [['2.5', '1']] }
  const snapshot = event('depthSnapshot', SNAPSHOT_ID, { lastUpdateId: SNAPSHOT_ID, ...levels, limit: 5 })
  await archive.add('depth', [...diffs, snapshot])
  return archive
}

async function bookIn(archive: ArchiveParts, instant: Instant) {
  const reader = await archive.openReader()
  return reader.read((snapshot) => bookAt(new ArchivedBooks(reader.duckDb, snapshot, SYMBOL), instant))
}

test('a keyframe is made once, with the book after its last diff, and later rounds continue after it', async () => {
  await using archive = await smallArchive()
  assert.equal((await makeKeyframes(archive, 3)).made, 2)
  const names = await keyframesOf(archive.store, SYMBOL)
  assert.deepEqual(
    names.map(({ epoch, lastUpdateId, snapshotId, eventTimeUs }) => [
      epoch,
      lastUpdateId,
      snapshotId,
      eventTimeUs,
    ]),
    [5, 8].map((id) => [0, id, SNAPSHOT_ID, at(id).us]),
  )
  assert.equal((await makeKeyframes(archive, 3)).made, 0)
  assert.deepEqual(await keyframesOf(archive.store, SYMBOL, { epoch: 0, lastUpdateId: 5 }), names.slice(1))
  assert.deepEqual(await keyframesOf(archive.store, SYMBOL, { epoch: 1, lastUpdateId: 5 }), [])
  const book = await bookIn(archive, at(LAST_ID))
  assert.equal(book.kind === 'book' && book.anchor.lastUpdateId, 8)
  assert.equal(book.kind === 'book' && book.anchor.derivedFrom?.lastUpdateId, SNAPSHOT_ID)
})

test('verify compares the keyframes of an archive with its books', async () => {
  await using archive = await smallArchive()
  const verified = async () => {
    const reader = await archive.openReader()
    return reader.read(async (snapshot) =>
      audit(await archiveTables(reader, snapshot, EVERYTHING), {
        ...AUDIT_OPTIONS,
        depthRows: archivedRows(reader.duckDb, snapshot),
      }),
    )
  }
  await makeKeyframes(archive, 3)
  const right = await verified()
  assert.deepEqual(failuresOf(right), [])
  assert.equal(right.books[0]?.comparedKeyframes, 2)
  const [name = assert.fail()] = await keyframesOf(archive.store, SYMBOL)
  const keyframe: Anchor = (await readKeyframe(archive.store, name)) ?? assert.fail()
  const bids = { ...keyframe.bids, quantities: keyframe.bids.quantities.map((quantity) => quantity + 1) }
  await archive.store.remove(name.key)
  await storeKeyframe(archive.store, SYMBOL, { ...keyframe, bids }, name.eventTimeUs)
  assert.deepEqual(failuresOf(await verified()), ['order book: keyframe, BTCUSDT depth, 1: 5'])
})
