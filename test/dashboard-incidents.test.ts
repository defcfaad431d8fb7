import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Rates } from '../src/foundation/telemetry/rates.ts'
import { unknownBooks } from '../src/foundation/telemetry/status.ts'
import { Incidents, problemsOf, type Seen } from '../src/tools/dashboard/incidents.ts'
import { durationText, momentText, priceText, spreadText } from '../src/tools/dashboard/page/format.ts'
import type { DeadLetterView, GapView, StoredView } from '../src/tools/dashboard/page/snapshot.ts'
import { column } from './support/columns.ts'

const NOTHING = { count: 0, p50: 0, p90: 0, p99: 0, max: 0 }
const NO_LETTERS = { deadLetters: [], unresolvedDeadLetters: 0 }
const STORED: StoredView = { ...NO_LETTERS, symbols: [], gaps: [], gapsByStatus: {} }
const GAP: GapView = {
  gapId: 'a',
  revision: 1,
  symbol: 'BTCUSDT',
  eventType: 'trade',
  fromId: 5,
  toId: 29,
  fromMs: null,
  toMs: null,
  cause: 'reconnect',
  status: 'open',
  reason: null,
  detectedMs: 1000,
  closedMs: null,
}
const LETTER: DeadLetterView = {
  place: 'binance.trades/0/7',
  origin: 'consumer',
  reason: 'p is not a decimal',
  failedMs: 2000,
  attempts: 1,
  resolvedMs: null,
}

function seen(changes: Partial<Seen> = {}): Seen {
  return {
    atMs: 0,
    version: '0.0.0',
    source: 'binance',
    parts: [{ name: 'ingestion', url: 'http://a', health: 'well', reason: '', uptimeMs: 1 }],
    connections: [],
    unfilled: [],
    unknownBooks: [],
    streams: [{ stream: 'btcusdt@trade', perSecond: 1, events: 1, silentMs: 0, quiet: false }],
    partitions: [],
    hasDatabase: true,
    archive: null,
    eventToReceiptMs: NOTHING,
    receiptToRowMs: NOTHING,
    received: 0,
    inserted: 0,
    rowsPerSecond: 0,
    stored: STORED,
    ...changes,
  }
}

/** The incidents of a sequence of states. */
function told(...moments: Seen[]): string[] {
  const incidents = new Incidents()
  return moments.flatMap((moment) => incidents.observe(moment).map(({ kind, text }) => `${kind} ${text}`))
}

test("a state that existed at the dashboard's start is no incident", () => {
  const bad = seen({ stored: { ...STORED, gaps: [GAP], deadLetters: [LETTER] } })
  assert.deepEqual(told(bad, bad), [])
})

test('a gap opened and filled between two polls is reported as both', () => {
  const filled = { ...GAP, revision: 2, status: 'filled', closedMs: 3000 }
  assert.deepEqual(told(seen(), seen({ stored: { ...STORED, gaps: [filled] } })), [
    'bad BTCUSDT trade 5–29: a gap (reconnect)',
    'good BTCUSDT trade 5–29: filled',
  ])
})

test('a narrowed gap is not reported again, and a lost one has its reason', () => {
  const gaps = (gap: Partial<GapView>) => seen({ stored: { ...STORED, gaps: [{ ...GAP, ...gap }] } })
  assert.deepEqual(
    told(gaps({}), gaps({ fromId: 9, revision: 2 }), gaps({ status: 'unrecoverable', reason: 'too large' })),
    ['bad BTCUSDT trade 5–29: lost, too large'],
  )
})

test('a service and a stream that recover are reported once each way, also after a database outage', () => {
  const [part] = seen().parts
  const [stream] = seen().streams
  assert.ok(part !== undefined && stream !== undefined)
  const away = seen({
    parts: [{ ...part, health: 'away', reason: 'does not answer' }],
    streams: [{ ...stream, quiet: true }],
    stored: null,
  })
  assert.deepEqual(told(seen(), away, away, seen()), [
    'bad ingestion: does not answer',
    'bad btcusdt@trade has gone quiet',
    'good ingestion has recovered',
    'good btcusdt@trade flows again',
  ])
  assert.deepEqual(problemsOf(away), ['ingestion: does not answer', 'btcusdt@trade has gone quiet'])
  const stored = { ...STORED, gapsByStatus: { open: 2 } }
  assert.deepEqual(problemsOf(seen({ stored })), ['2 gaps are being filled'])
  const unfilled = ['2 gaps cannot be filled now: HTTP 404']
  assert.deepEqual(problemsOf(seen({ stored, unfilled })), unfilled)
  const books = {
    ...{ symbols: 3, needs: { missing: 2, edge: 1 }, oldestAnchorAgeMs: 0 },
    withoutAnchor: [
      { symbol: 'BTCUSDT', problem: 'HTTP 503' },
      { symbol: 'ETHUSDT', problem: null },
    ],
  }
  const text = unknownBooks(books) ?? assert.fail()
  assert.match(text, /^the order books of BTCUSDT and 1 other symbol cannot be built .*: HTTP 503$/)
  assert.deepEqual(problemsOf(seen({ unknownBooks: [text] })), [text])
  assert.equal(unknownBooks({ ...books, needs: { missing: 0 }, withoutAnchor: [] }), null)
})

test('an old dead letter that becomes visible because others are resolved is no new incident', () => {
  const letters = (...deadLetters: DeadLetterView[]) => seen({ stored: { ...STORED, deadLetters } })
  const old = { ...LETTER, place: 'binance.trades/0/1', failedMs: 1000 }
  const young = { ...LETTER, place: 'binance.trades/0/9', failedMs: 3000 }
  assert.deepEqual(
    told(letters(LETTER), letters({ ...LETTER, resolvedMs: 9000 }, old), letters(LETTER, young)),
    ['bad a dead letter, binance.trades/0/9: p is not a decimal'],
  )
})

test('connections of several ingestions are distinguished, and not reported while their service does not answer', () => {
  const open = { id: 0, streams: 1, ageMs: 1, lastDataAgeMs: 1, attempts: 1, rolloverInMs: null }
  const connection = (part: string, state: 'streaming' | 'waiting') => ({ ...open, part, state })
  const parts = (health: 'well' | 'away') => [
    { name: 'ingestion 1', url: 'http://a', health: 'well' as const, reason: '', uptimeMs: 1 },
    { name: 'ingestion 2', url: 'http://b', health, reason: 'does not answer', uptimeMs: 1 },
  ]
  const both = (second: 'streaming' | 'waiting') =>
    seen({
      parts: parts('well'),
      connections: [connection('ingestion 1', 'streaming'), connection('ingestion 2', second)],
    })
  const one = seen({ parts: parts('away'), connections: [connection('ingestion 1', 'streaming')] })
  assert.deepEqual(told(both('streaming'), both('waiting'), both('waiting'), both('streaming')), [
    'bad connection 0 of ingestion 2 is down',
    'good connection 0 of ingestion 2 is back',
  ])
  assert.deepEqual(told(both('streaming'), one), ['bad ingestion 2: does not answer'])
})

test('incidents between two polls are reported in their order', () => {
  const lost = { ...GAP, gapId: 'b', fromId: 40, toId: 40, detectedMs: 500 }
  const incidents = new Incidents()
  incidents.observe(seen())
  const times = incidents.observe(seen({ atMs: 9000, stored: { ...STORED, gaps: [GAP, lost] } }))
  assert.deepEqual(column(times, 'atMs'), [500, 1000])
})

test('a time of another day shows its date', () => {
  const now = Date.UTC(2026, 0, 2, 0, 5)
  assert.equal(momentText(now - 60_000, now), '00:04:00')
  assert.equal(momentText(now - 600_000, now), '2026-01-01 23:55:00')
})

test('a counter reset gives no negative rate', () => {
  const rates = new Rates()
  assert.equal(rates.of('rows', 100, 0), 0)
  assert.equal(rates.of('rows', 150, 1000), 50)
  assert.equal(rates.of('rows', 10, 2000), 0)
  assert.equal(rates.of('rows', 30, 3000), 20)
})

test('a spread is exact to the last digit, and a price keeps its digits', () => {
  assert.equal(spreadText('0.00000009', '0.00000010'), '0.00000001')
  assert.equal(spreadText('60016.28000000', '60016.27000000'), '−0.01')
  assert.equal(priceText('60000.00000000'), '60000.00')
  assert.equal(priceText('0.00001230'), '0.0000123')
  assert.equal(durationText(80_630_000), '22 h 23 min')
})
