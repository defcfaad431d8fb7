import assert from 'node:assert/strict'
import { chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { ArchiveKeyframes } from '../src/archive/keyframes.ts'
import { ArchivedBooks } from '../src/foundation/archive/archived-books.ts'
import { KEYFRAMES, keyframesOf } from '../src/foundation/archive/archived-keyframes.ts'
import { type BookAt, type BookRefusal, bookAt, type Instant } from '../src/foundation/order-book/book-at.ts'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import { describeError } from '../src/foundation/runtime/errors.ts'
import { checkArchive } from '../src/tools/archive/check.ts'
import { archivedRows } from '../src/tools/verify/archive-depth.ts'
import { archiveTables } from '../src/tools/verify/archive-tables.ts'
import { EVERYTHING } from '../src/tools/verify/scope.ts'
import { audit } from '../src/tools/verify/verify.ts'
import { type ArchiveParts, createArchive } from './support/archive-parts.ts'
import { AUDIT_OPTIONS, failuresOf } from './support/audited-market.ts'
import type { Pair } from './support/book-rows.ts'
import { eventValue, record } from './support/records.ts'

const SYMBOL = 'BTCUSDT'
const NEVER = new AbortController().signal
const SNAPSHOT_ID = 2
const HOUR_MS = 3_600_000
const START_MS = Date.UTC(2024, 7, 8, 12)

const at = (ms: number) => ({ kind: 'event time', us: (START_MS + ms) * 1000 }) as const

interface Event {
  readonly symbol?: string
  /** After the start, on the exchange's clock. */
  readonly ms: number
  /** By how much the clock of the receipt is ahead. */
  readonly aheadMs?: number
  readonly bids?: readonly Pair[]
  readonly asks?: readonly Pair[]
}

function message(type: 'depth' | 'depthSnapshot', { symbol, ms, aheadMs = 0 }: Event, fields: object) {
  const receivedMs = START_MS + ms + aheadMs
  const receipt = { ingestion_timestamp: receivedMs, ingestion_timestamp_us: receivedMs * 1000 + 500 }
  return record(
    eventValue(type, { s: symbol ?? SYMBOL, symbol: symbol ?? SYMBOL, ...fields, ...receipt }),
    null,
    { epoch: '0' },
  )
}

function diff(U: number, u: number, event: Event) {
  return message('depth', event, { U, u, E: START_MS + event.ms, b: event.bids ?? [], a: event.asks ?? [] })
}

function snapshot(lastUpdateId: number, limit: number, event: Event) {
  const { bids = [['1.5', '1']], asks = [['2.5', '1']] } = event
  return message('depthSnapshot', event, { lastUpdateId, bids, asks, limit })
}

async function round({ store, duckDb }: ArchiveParts, everyMs: number, signal = NEVER): Promise<void> {
  await new ArchiveKeyframes(store, duckDb, systemClock(), everyMs).round(signal)
}

async function bookIn(archive: ArchiveParts, instant: Instant, symbol = SYMBOL) {
  const reader = await archive.openReader()
  return reader.read((snapshot) => bookAt(new ArchivedBooks(reader.duckDb, snapshot, symbol), instant))
}

async function withoutKeyframes({ store }: ArchiveParts, under = KEYFRAMES): Promise<void> {
  for (const key of await store.list(under)) await store.remove(key)
}

function withoutAnchor(answer: BookAt | BookRefusal) {
  return answer.kind === 'book' ? { ...answer, anchor: null } : answer
}

async function verified(archive: ArchiveParts): Promise<string[]> {
  const reader = await archive.openReader()
  const report = await reader.read(async (snapshot) =>
    audit(await archiveTables(reader, snapshot, EVERYTHING), {
      ...AUDIT_OPTIONS,
      depthRows: archivedRows(reader.duckDb, snapshot),
    }),
  )
  return failuresOf(report)
}

/** A snapshot and diffs with the ids 1 to 9, one a millisecond. */
function small(symbol: string, limit = 5) {
  const ids = [1, 2, 3, 4, 5, 6, 7, 8, 9]
  return [
    ...ids.map((id) => diff(id, id, { symbol, ms: id, bids: [['1.5', String(id)]] })),
    snapshot(SNAPSHOT_ID, limit, { symbol, ms: 2, bids: [['1.5', '2']] }),
  ]
}

/** The same book as without keyframes, which are removed. */
async function assertSameWithout(archive: ArchiveParts, instant: Instant): Promise<void> {
  const found = await bookIn(archive, instant)
  await withoutKeyframes(archive)
  assert.deepEqual(withoutAnchor(found), withoutAnchor(await bookIn(archive, instant)))
}

test('diffs after a keyframe are read although the clock of its receipt was hours ahead', async () => {
  await using archive = await createArchive()
  const minuteMs = 60_000
  // From 22:31 to 02:40: the clock is right again before midnight.
  const msOf = (id: number) => 10.5 * HOUR_MS + id * minuteMs
  const aheadMs = (id: number) => (id > 20 && id < 40 ? 3 * HOUR_MS : 0)
  await archive.add('depth', [
    snapshot(1, 5, { ms: msOf(1) }),
    ...Array.from({ length: 30 }, (_, i) => diff(i + 1, i + 1, { ms: msOf(i + 1), aheadMs: aheadMs(i + 1) })),
  ])
  await round(archive, 28 * minuteMs)
  const names = await keyframesOf(archive.store, SYMBOL)
  assert.deepEqual(
    names.map(({ lastUpdateId }) => lastUpdateId),
    [29],
  )
  const rest = Array.from({ length: 220 }, (_, i) => i + 31)
  await archive.add(
    'depth',
    rest.map((id) => diff(id, id, { ms: msOf(id), aheadMs: aheadMs(id), bids: [['1.5', String(id)]] })),
  )
  await archive.publish()
  const found = await bookIn(archive, at(msOf(249)))
  assert.equal(found.kind === 'book' && found.anchor.lastUpdateId, 29)
  await assertSameWithout(archive, at(msOf(249)))
})

test('a snapshot that arrives after keyframes with higher ids is used, and so are its own keyframes', async () => {
  await using archive = await createArchive()
  const bids: Pair[] = [
    ['1.5', '4'],
    ['1.4', '1'],
    ['1.3', '1'],
  ]
  await archive.add('depth', small(SYMBOL, 1))
  await round(archive, 3)
  assert.equal((await keyframesOf(archive.store, SYMBOL)).length, 2)
  await archive.add('depth', [snapshot(4, 5, { ms: 4, bids })])
  await archive.add('depth', [diff(10, 10, { ms: 10 }), diff(11, 11, { ms: 11 }), diff(12, 12, { ms: 12 })])
  const early = await bookIn(archive, at(9))
  assert.deepEqual(early.kind === 'book' && [early.anchor.lastUpdateId, early.bids.levels.length], [4, 3])
  await round(archive, 3)
  const late = await bookIn(archive, at(12))
  assert.deepEqual(late.kind === 'book' && [late.anchor.lastUpdateId, late.bids.levels.length], [11, 3])
  assert.deepEqual(await verified(archive), [])
  await assertSameWithout(archive, at(12))
})

test('a keyframe of a snapshot with the same id and fewer levels is not used', async () => {
  await using archive = await createArchive()
  await archive.add('depth', small(SYMBOL, 1))
  await round(archive, 3)
  const bids: Pair[] = [
    ['1.5', '2'],
    ['1.4', '1'],
  ]
  await archive.add('depth', [snapshot(2, 5, { ms: 3, bids })])
  const book = await bookIn(archive, at(9))
  assert.equal(book.kind === 'book' && book.bids.levels.length, 2)
  await assertSameWithout(archive, at(9))
})

test('O16 a keyframe that is exact to less than the book, since a diff arrived late, is no finding', async () => {
  await using archive = await createArchive()
  const asks: Pair[] = [
    ['2.5', '0'],
    ['3.5', '1'],
  ]
  await archive.add('depth', [
    snapshot(2, 1, { ms: 2 }),
    diff(3, 6, { ms: 6, bids: [['3', '0']], asks: [...asks, ['2.4', '1']] }),
    diff(7, 7, { ms: 7 }),
  ])
  await round(archive, 4)
  assert.equal((await keyframesOf(archive.store, SYMBOL)).length, 1)
  // Its bid of 3 shows that no ask was below it then.
  await archive.add('depth', [diff(3, 4, { ms: 4, bids: [['3', '1']], asks })])
  assert.deepEqual(await verified(archive), [])
})

test('a damaged keyframe is not used: an older one is, then the snapshot, and verify continues', async () => {
  await using archive = await createArchive()
  await archive.add('depth', small(SYMBOL))
  await round(archive, 3)
  const reader = await archive.openReader()
  const expected = [5, SNAPSHOT_ID]
  for (const [i, { key }] of (await keyframesOf(archive.store, SYMBOL)).reverse().entries()) {
    const path = join(archive.folder, key)
    chmodSync(path, 0o600)
    writeFileSync(path, readFileSync(path, 'utf8').replace('"bidHorizon":null', '"bidHorizon":"1"'))
    const book = await bookIn(archive, at(9))
    assert.equal(book.kind === 'book' && book.anchor.lastUpdateId, expected[i])
    const { wrong } = await checkArchive(reader)
    assert.equal(wrong.length, i + 1)
    assert.match(wrong.join(), /is damaged at _keyframes\/BTCUSDT\/.*its content is not that of its name/)
  }
  assert.deepEqual(await verified(archive), [])
  await assertSameWithout(archive, at(9))
  assert.deepEqual((await checkArchive(reader)).wrong, [])
})

test('a keyframe of another symbol is not used', async () => {
  await using archive = await createArchive()
  await archive.add('depth', [...small('AAAUSDT'), ...small(SYMBOL).slice(0, 6), snapshot(2, 5, { ms: 2 })])
  await archive.add('depth', [diff(7, 9, { ms: 9, bids: [['1.4', '3']] })])
  await round(archive, 3)
  await withoutKeyframes(archive, `${KEYFRAMES}/${SYMBOL}`)
  const [{ key } = assert.fail()] = await keyframesOf(archive.store, 'AAAUSDT')
  const foreign = join(archive.folder, key.replace('AAAUSDT', SYMBOL))
  mkdirSync(dirname(foreign), { recursive: true })
  copyFileSync(join(archive.folder, key), foreign)
  const book = await bookIn(archive, at(9))
  assert.equal(book.kind === 'book' && book.anchor.lastUpdateId, SNAPSHOT_ID)
  const { wrong } = await checkArchive(await archive.openReader())
  assert.match(wrong.join(), /it is that of another book/)
})

test('a symbol whose book cannot be rebuilt does not keep the others from their keyframes', async () => {
  await using archive = await createArchive()
  const [large, fine]: [Pair, Pair] = [
    ['1.5', '99999999.5'],
    ['1.4', '0.00000001'],
  ]
  const broken = (symbol: string) => [
    ...[1, 2, 3].map((id) => diff(id, id, { symbol, ms: id })),
    snapshot(2, 5, { symbol, ms: 2, bids: [large] }),
    ...[4, 5, 6, 7, 8, 9].map((id) => diff(id, id, { symbol, ms: id, bids: [fine] })),
  ]
  await archive.add('depth', [...broken('AAAUSDT'), ...small(SYMBOL), ...broken('ZZZUSDT')])
  await assert.rejects(round(archive, 3), (error) => {
    assert.match(describeError(error), /2 symbols .*AAAUSDT: The order book cannot hold/)
    return true
  })
  assert.equal((await keyframesOf(archive.store, SYMBOL)).length, 2)
})

test('a round ends at the next symbol when the service stops', async () => {
  await using archive = await createArchive()
  await archive.add('depth', small(SYMBOL))
  await round(archive, 3)
  await assert.rejects(round(archive, 3, AbortSignal.abort(new Error('stopping'))), /stopping/)
})

test('a symbol with the longest name has keyframes', async () => {
  await using archive = await createArchive()
  // Four bytes each.
  const symbol = '𠀀'.repeat(40)
  await archive.add('depth', small(symbol))
  await round(archive, 3)
  const book = await bookIn(archive, at(9), symbol)
  assert.equal(book.kind === 'book' && book.anchor.lastUpdateId, 8)
})
