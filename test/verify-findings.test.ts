import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { TapelineError } from '../src/foundation/runtime/errors.ts'
import { renderAudit } from '../src/tools/verify/report.ts'
import { REPORT, type Report } from '../src/tools/verify/report-types.ts'
import { parseUtc } from '../src/tools/verify/scope.ts'
import { verify } from '../src/tools/verify/verify.ts'
import { mayStillArrive } from '../src/tools/verify/watermark.ts'
import {
  AUDIT_OPTIONS,
  type AuditedMarket,
  createAuditedMarket,
  deadLetterSql,
  failuresOf,
  gapSql,
} from './support/audited-market.ts'
import { recordingSql } from './support/recordings.ts'

const BTC_TRADES = "symbol = 'BTCUSDT' AND event_type = 'trade'"
const sequenceOf = ({ sequences }: Report) =>
  sequences.find(({ symbol, eventType }) => symbol === 'BTCUSDT' && eventType === 'trade') ??
  assert.fail('the sequence is not in the result')

let market: AuditedMarket
before(async () => {
  market = await createAuditedMarket()
})
after(() => market[Symbol.asyncDispose]())

test('finds nothing in complete data, and prints JSON as documented', async () => {
  const audit = await verify(market.database, AUDIT_OPTIONS)
  assert.deepEqual(REPORT.parse(JSON.parse(JSON.stringify(audit))), audit)
  assert.equal(audit.verdict, 'clean')
  assert.deepEqual(audit.findings, [])
  assert.deepEqual(
    audit.sequences.map(({ eventType, rows, firstId, lastId }) => [eventType, rows, firstId, lastId]),
    ['BTCUSDT', 'ETHUSDT'].flatMap(() => [
      ['trade', 100, 1000, 1099],
      ['aggTrade', 50, 500, 549],
    ]),
  )
  assert.deepEqual(
    audit.quotes.map(({ symbol, rows }) => [symbol, rows]),
    [
      ['BTCUSDT', 90],
      ['ETHUSDT', 90],
    ],
  )
  assert.match(renderAudit(audit), /no duplicates, no mismatches/)
})

test('finds a removed row, and names it', async () => {
  const audit = await market.auditAfter([
    `DELETE FROM trades WHERE ${BTC_TRADES} AND trade_id IN (1005, 1006, 1050)`,
  ])
  assert.equal(audit.verdict, 'not clean')
  assert.deepEqual(failuresOf(audit), [
    { what: 'continuity: missing', of: 'BTCUSDT trade', count: 3, ids: ['1005..1006', '1050'] },
  ])
  const text = renderAudit(audit)
  assert.match(text, /BTCUSDT trade: 3 missing without explanation\n +1005\.\.1006, 1050\n/)
  assert.match(text, /BTCUSDT: 3 aggTrades with trades that are not stored/)
})

test('begins where the consumer began, and reports older stored rows', async () => {
  const start = (fields: object) =>
    `INSERT INTO meta (key, value) VALUES ('start:BTCUSDT trade', '${JSON.stringify({ symbol: 'BTCUSDT', eventType: 'trade', epoch: 0, id: 1040, timeMs: Date.now(), ...fields })}')`
  const holes = `DELETE FROM trades WHERE ${BTC_TRADES} AND trade_id IN (1005, 1006, 1030, 1060)`
  const filled = gapSql('filled', 1000, 1008)
  const audit = await market.auditAfter([holes, filled, start({})])
  assert.deepEqual(failuresOf(audit), [
    { what: 'continuity: missing', of: 'BTCUSDT trade', count: 1, ids: ['1060'] },
  ])
  const { missing, beforeStart, rows, firstId } = sequenceOf(audit)
  assert.deepEqual([missing, beforeStart, rows, firstId], [1, 37, 96, 1000])
  assert.match(
    renderAudit(audit),
    /BTCUSDT: 37 trade rows from before the consumer's first start: .*\n +1000\.\.1039/,
  )
  // Nothing older is stored, or everything is of an earlier epoch.
  assert.equal(sequenceOf(await market.auditAfter([start({ id: 1000 })])).beforeStart, 0)
  const older = await market.auditAfter([holes, filled, start({ epoch: 1, id: 5 })])
  assert.deepEqual([older.verdict, sequenceOf(older).beforeStart], ['clean', 96])
  // Rows of an earlier epoch with later times: the epoch count was lost, and these rows are
  // checked.
  const recounted = await market.auditAfter([
    holes,
    filled,
    start({ epoch: 1, id: 5, timeMs: 1_500_000_000_000 }),
  ])
  assert.deepEqual([recounted.verdict, sequenceOf(recounted).beforeStart], ['not clean', 0])
  // A later epoch begins with its first row.
  const later = await market.auditAfter([
    holes,
    `UPDATE trades SET epoch = 1 WHERE ${BTC_TRADES} AND trade_id >= 1050`,
    start({ id: 1040 }),
  ])
  assert.deepEqual(
    failuresOf(later).map(({ ids }) => ids),
    [['1060']],
  )
})

test('S8 checks a sequence after a reset from its first id, and treats the window before it as explained', async () => {
  const reset = `INSERT INTO gaps (gap_id, revision, symbol, event_type, epoch, from_time, to_time, cause, status, reason, detected_at, updated_at)
    VALUES ('BTCUSDT/trade/1/50', 1, 'BTCUSDT', 'trade', 1, '2026-01-02 23:00', '2026-01-03 04:00', 'reset', 'unrecoverable', 'ids', '2026-01-03', '2026-01-03')`
  const begun = `UPDATE trades SET epoch = 1, trade_id = trade_id - 1000 WHERE ${BTC_TRADES} AND trade_id >= 1050`
  const audit = await market.auditAfter([begun, reset])
  assert.deepEqual(failuresOf(audit), [])
  const holed = await market.auditAfter([
    begun,
    reset,
    `DELETE FROM trades WHERE ${BTC_TRADES} AND epoch = 1 AND trade_id IN (60, 61)`,
  ])
  assert.deepEqual(failuresOf(holed)[0], {
    what: 'continuity: missing',
    of: 'BTCUSDT trade',
    count: 2,
    ids: ['60..61'],
  })
})

test("compares the rows with ingestion's announcements", async () => {
  // Up to the last trade.
  const quotes = `INSERT INTO book_ticker SELECT timestamptz '2026-01-01' + n * interval '1 hour', symbol, 7000 + n * 3, 60000, 1, 60000.01, 2
    FROM generate_series(90, 98) AS n, unnest('{BTCUSDT,ETHUSDT}'::text[]) AS symbol`
  const foundAfter = async (changes: readonly string[]) =>
    (await market.auditAfter([quotes, ...changes])).findings
      .filter(({ check }) => check === 'recordings')
      .map(({ kind, severity, symbol, eventType }) => [kind, severity, symbol, eventType])
  const start = recordingSql('2026-01-01T00:00:00Z')
  assert.deepEqual(await foundAfter([start]), [])
  const ethTrades = `symbol = 'ETHUSDT' AND event_type = 'trade'`
  assert.deepEqual(await foundAfter([start, `DELETE FROM trades WHERE ${ethTrades}`]), [
    ['absent', 'failure', 'ETHUSDT', 'trade'],
  ])
  assert.deepEqual(await foundAfter([start, "DELETE FROM book_ticker WHERE symbol = 'ETHUSDT'"]), [
    ['absent', 'failure', 'ETHUSDT', 'bookTicker'],
  ])
  const late = "trade_time > '2026-01-03'"
  assert.deepEqual(await foundAfter([start, `DELETE FROM trades WHERE ${ethTrades} AND ${late}`]), [
    ['ended', 'failure', 'ETHUSDT', 'trade'],
  ])
  const other = recordingSql('2026-01-01T00:00:00Z', { symbols: ['NEVERUSDT'] })
  assert.deepEqual(await foundAfter([other]), [['silent', 'notice', 'NEVERUSDT', null]])
  // Recorded for too short a time to draw conclusions.
  assert.deepEqual(await foundAfter([recordingSql('2027-01-01T00:00:00Z', { symbols: ['NEVERUSDT'] })]), [])
  // A type that is no longer recorded has ended for that reason.
  const fewer = recordingSql('2026-01-02T00:00:00Z', { event_types: ['trade', 'aggTrade'] })
  const early = "DELETE FROM book_ticker WHERE ingestion_timestamp > '2026-01-02 04:00'"
  assert.deepEqual(await foundAfter([start, fewer, early]), [])
  const again = recordingSql('2026-01-02T12:00:00Z')
  assert.deepEqual(await foundAfter([start, fewer, again, early]), [
    ['ended', 'failure', 'BTCUSDT', 'bookTicker'],
    ['ended', 'failure', 'ETHUSDT', 'bookTicker'],
  ])
  // Retention has dropped the quotes of the symbol's trading time.
  assert.deepEqual(
    await foundAfter([
      start,
      "DELETE FROM book_ticker WHERE symbol = 'ETHUSDT'",
      "DELETE FROM trades WHERE symbol = 'ETHUSDT' AND trade_time > '2026-01-03'",
      "INSERT INTO meta (key, value) VALUES ('retention:book_ticker', '2026-01-03')",
    ]),
    [['ended', 'notice', 'ETHUSDT', null]],
  )
  const second = recordingSql('2026-01-02T00:00:00Z', {
    source: 'binance-us',
    time_unit: 'millisecond',
    topics: { trades: 'u', bookTicker: 'b', gaps: 'g' },
  })
  assert.deepEqual(await foundAfter([start, second]), [
    ['sources', 'failure', null, null],
    ['time units', 'failure', null, null],
    ['topics', 'failure', null, null],
  ])
})

test('says that nothing was announced, and that the exchange was not asked about a silent symbol', async () => {
  const notChecked = async (changes: readonly string[], options: object = {}) =>
    (await market.auditAfter(changes, options)).notChecked.flatMap(({ what, examples }) =>
      /announcement|--exchange/.test(what) ? [[what, ...examples.map(({ detail }) => detail)]] : [],
    )
  const none = 'streams that never delivered or ended: the database has no announcement of what is recorded'
  assert.deepEqual(await notChecked([]), [[none]])
  assert.deepEqual(await notChecked([recordingSql('2026-01-01T00:00:00Z')]), [])
  const silent = [
    recordingSql('2026-01-01T00:00:00Z', { symbols: ['NEVERUSDT', 'ETHUSDT'] }),
    "DELETE FROM trades WHERE symbol = 'ETHUSDT' AND trade_time > '2026-01-03'",
    "DELETE FROM book_ticker WHERE symbol = 'ETHUSDT' AND ingestion_timestamp > '2026-01-03'",
  ]
  assert.deepEqual(
    (await notChecked(silent)).map(([, ...symbols]) => symbols),
    [['NEVERUSDT', 'ETHUSDT']],
  )
  assert.deepEqual(await notChecked(silent, { asksExchange: true }), [])
})

test('takes types of a shard that is no more for recorded no more', async () => {
  const found = async (shard: string) => {
    const changes = [
      recordingSql('2026-01-01T00:00:00Z', { shard: '0/2', symbols: ['BTCUSDT'] }),
      recordingSql('2026-01-01T00:00:01Z', { shard: '1/2', symbols: ['ETHUSDT'] }),
      recordingSql('2026-01-02T00:00:00Z', { shard, event_types: ['trade', 'aggTrade'] }),
      "DELETE FROM book_ticker WHERE ingestion_timestamp > '2026-01-02 04:00'",
    ]
    return (await market.auditAfter(changes)).findings
      .filter(({ check }) => check === 'recordings')
      .map(({ kind, symbol, eventType }) => [kind, symbol, eventType])
  }
  assert.deepEqual(await found('0/1'), [])
  // The other shard still records.
  assert.deepEqual(await found('0/2'), [['ended', 'ETHUSDT', 'bookTicker']])
})

test('finds a removed aggTrade', async () => {
  const audit = await market.auditAfter([
    `DELETE FROM trades WHERE symbol = 'BTCUSDT' AND event_type = 'aggTrade' AND trade_id = 520`,
  ])
  assert.deepEqual(failuresOf(audit), [
    { what: 'continuity: missing', of: 'BTCUSDT aggTrade', count: 1, ids: ['520'] },
  ])
})

test('treats exactly the ids in the ledger or in dead letters as explained', async () => {
  const audit = await market.auditAfter([
    `DELETE FROM trades WHERE ${BTC_TRADES} AND trade_id BETWEEN 1010 AND 1019`,
    gapSql('open', 1008, 1012),
    gapSql('unrecoverable', 1014, 1015),
    gapSql('filled', 1016, 1017),
    gapSql('unrecoverable', 1018, 1018, { epoch: 1 }),
    gapSql('unrecoverable', 1018, 1018, { symbol: 'ETHUSDT' }),
    gapSql('unrecoverable', 1018, 1018, { eventType: 'aggTrade' }),
    deadLetterSql(1, '{"e":"trade","s":"BTCUSDT","t":1013,"p":"abc"}'),
    deadLetterSql(2, '{"e":"aggTrade","s":"BTCUSDT","a":1019,"p":"abc"}'),
    deadLetterSql(3, '{"e":"trade","s":"BTCUSDT","t":1019'),
    deadLetterSql(4, '{"e":"trade","s":"BTCUSDT","t":1019,"p":"abc"}'),
    'UPDATE dead_letters SET resolved_at = now() WHERE kafka_offset = 4',
  ])
  const { missing, explained, unexplained, saidFilled } = sequenceOf(audit)
  assert.deepEqual([missing, explained, unexplained, saidFilled], [10, 6, 4, 2])
  assert.deepEqual(failuresOf(audit), [
    { what: 'continuity: missing', of: 'BTCUSDT trade', count: 4, ids: ['1016..1019'] },
    { what: 'ledger: filled', of: 'BTCUSDT trade', count: 1, ids: ['1016..1017'] },
  ])
  assert.equal(mayStillArrive(audit, null), false, 'unexplained ids are missing, however long one waits')
  const text = renderAudit(audit)
  assert.match(
    text,
    /BTCUSDT trade: 1 gap still open\n +1008\.\.1012 BTCUSDT\/trade\/0\/1008: reconnect since/,
  )
  assert.match(text, /BTCUSDT trade: 1 dead letter: received but not stored\n +1013 p is not a decimal/)
  assert.match(text, /1 dead letter without a usable id: p is not a decimal\n +t, partition 0, offset 3/)
})

test('finds contradictory ledger rows, but accepts adjacent ones and those of another stream', async () => {
  const audit = await market.auditAfter([
    `DELETE FROM trades WHERE ${BTC_TRADES} AND trade_id BETWEEN 1010 AND 1019`,
    gapSql('unrecoverable', 1010, 1030),
    gapSql('filled', 1020, 1022),
    gapSql('open', 1025, 1026),
    gapSql('filled', 1031, 1032),
    gapSql('filled', 1020, 1022, { eventType: 'aggTrade' }),
    gapSql('filled', 1020, 1022, { epoch: 1 }),
    gapSql('filled', 1020, 1022, { symbol: 'ETHUSDT' }),
  ])
  assert.deepEqual(
    failuresOf(audit).filter(({ what }) => what === 'ledger: overlap'),
    [{ what: 'ledger: overlap', of: 'BTCUSDT trade', count: 2, ids: ['1020..1022', '1025..1026'] }],
  )
  assert.match(renderAudit(audit), /BTCUSDT trade: 2 ledger rows with ids that are also in another row/)
})

test('distinguishes ids that are only in the ledger so far from lost ids', async () => {
  const audit = await market.auditAfter([
    `DELETE FROM trades WHERE ${BTC_TRADES} AND trade_id BETWEEN 1010 AND 1012`,
    gapSql('filled', 1010, 1015),
  ])
  assert.equal(audit.verdict, 'not clean', 'until they are stored they are missing')
  assert.equal(sequenceOf(audit).saidFilled, 3)
  assert.equal(mayStillArrive(audit, null), true)
  const at = (stored: number, end: number) => ({
    notReached: null,
    partitions: [{ topic: 'trades', partition: 0, stored, end, pending: end - stored }],
    pending: end - stored,
  })
  const first = at(5, 9)
  assert.equal(mayStillArrive({ ...audit, watermark: first }, null), true, 'it may be pending')
  assert.equal(mayStillArrive({ ...audit, watermark: at(8, 20) }, first), true, 'still')
  assert.equal(
    mayStillArrive({ ...audit, watermark: at(9, 20) }, first),
    false,
    'all messages of Kafka are stored',
  )
})

test('finds a filled gap whose last ids are missing, and expects none below the first stored id', async () => {
  const audit = await market.auditAfter([
    `DELETE FROM trades WHERE ${BTC_TRADES} AND trade_id >= 1098`,
    gapSql('filled', 1090, 1099),
    gapSql('filled', 900, 1001),
  ])
  assert.deepEqual(failuresOf(audit), [
    { what: 'ledger: filled', of: 'BTCUSDT trade', count: 1, ids: ['1090..1099'] },
  ])
  assert.match(renderAudit(audit), /BTCUSDT\/trade\/0\/1090: 2 not stored/)
})

test('accepts a filled gap if the missing id is a dead letter', async () => {
  const audit = await market.auditAfter([
    `DELETE FROM trades WHERE ${BTC_TRADES} AND trade_id = 1013`,
    gapSql('filled', 1010, 1017),
    deadLetterSql(1, '{"e":"trade","s":"BTCUSDT","t":1013,"p":"abc"}'),
  ])
  assert.deepEqual(failuresOf(audit), [])
  assert.equal(sequenceOf(audit).unexplained, 0)
})

test('reports a partly filled gap', async () => {
  const audit = await market.auditAfter([gapSql('filled', 1010, 1011), gapSql('unrecoverable', 1012, 1012)])
  assert.equal(audit.verdict, 'clean')
  assert.match(
    renderAudit(audit),
    /1 gap partly filled.*\n +1010\.\.1011 .*the rest 1012\.\.1012 is unrecoverable/,
  )
})

test('compares the ids of each epoch separately', async () => {
  const audit = await market.auditAfter([
    `UPDATE trades SET epoch = 1, trade_id = trade_id - 1050, first_trade_id = first_trade_id - 1050, last_trade_id = last_trade_id - 1050
     WHERE event_type = 'trade' AND symbol = 'BTCUSDT' AND trade_id >= 1050`,
    `UPDATE trades SET epoch = 1, trade_id = trade_id - 525, first_trade_id = first_trade_id - 1050, last_trade_id = last_trade_id - 1050
     WHERE event_type = 'aggTrade' AND symbol = 'BTCUSDT' AND trade_id >= 525`,
    'DELETE FROM trades WHERE epoch = 1 AND trade_id = 7',
    // A dead letter has its message's epoch in a header: it explains an id of that epoch only.
    "DELETE FROM trades WHERE epoch = 1 AND event_type = 'trade' AND trade_id = 9",
    deadLetterSql(1, '{"e":"trade","s":"BTCUSDT","t":9}', 1),
    deadLetterSql(2, '{"e":"trade","s":"BTCUSDT","t":7}'),
  ])
  assert.deepEqual(
    failuresOf(audit).map(({ of, count, ids }) => [of, count, ...ids]),
    [
      ['BTCUSDT trade', 1, '7'],
      ['BTCUSDT aggTrade', 1, '7'],
    ],
  )
  assert.match(renderAudit(audit), /BTCUSDT trade \(epoch 1\): 1 missing/)
})

test('checks only a given symbol and range, and reports nothing cut off by it as missing', async () => {
  const scope = {
    symbols: ['BTCUSDT'],
    fromMs: parseUtc('--from', '2026-01-02', 'from'),
    toMs: parseUtc('--to', '2026-01-02', 'to'),
  }
  const removed = (id: number) => `DELETE FROM trades WHERE event_type = 'trade' AND trade_id = ${id}`
  const audit = await market.auditAfter(
    [
      removed(1002),
      removed(1080),
      // Stored on the other side of the boundary: times need not be in the order of ids.
      `INSERT INTO trades SELECT timestamptz '2026-01-03 00:00:00.001', event_time, symbol, event_type, epoch, trade_id, price, quantity,
         first_trade_id, last_trade_id, is_buyer_maker, ingestion_timestamp, source FROM trades WHERE ${BTC_TRADES} AND trade_id = 1030`,
      `DELETE FROM trades WHERE ${BTC_TRADES} AND trade_id = 1030 AND trade_time < '2026-01-03'`,
    ],
    { scope },
  )
  assert.deepEqual(
    audit.sequences.map(({ symbol, eventType, firstId, lastId, missing }) => [
      symbol,
      eventType,
      firstId,
      lastId,
      missing,
    ]),
    [
      ['BTCUSDT', 'trade', 1024, 1047, 0],
      ['BTCUSDT', 'aggTrade', 512, 523, 0],
    ],
  )
  assert.deepEqual(failuresOf(audit), [])
  const found = await market.auditAfter([removed(1030)], { scope })
  assert.deepEqual(failuresOf(found), [
    { what: 'continuity: missing', of: 'BTCUSDT trade', count: 1, ids: ['1030'] },
  ])
})

test('does not report rows dropped by retention as missing', async () => {
  const audit = await market.auditAfter([
    "SELECT drop_chunks('trades', timestamptz '2026-01-02')",
    "SELECT drop_chunks('book_ticker', timestamptz '2026-01-02')",
    gapSql('filled', 1010, 1011),
  ])
  assert.equal(audit.verdict, 'clean')
  assert.equal(sequenceOf(audit).firstId, 1024)
  const noted = await market.auditAfter([
    "INSERT INTO meta (key, value) VALUES ('retention:trades', '2026-01-01T00:00:00.000Z')",
  ])
  assert.match(renderAudit(noted), /rows of trades before 2026-01-01T00:00:00.000Z: retention has dropped/)
  // Retention does not end the check of ledger ids after the last row.
  const lost = await market.auditAfter([
    "INSERT INTO meta (key, value) VALUES ('retention:trades', '2026-01-01T00:00:00.000Z')",
    gapSql('filled', 1900, 1901),
  ])
  assert.deepEqual(failuresOf(lost), [
    { what: 'ledger: filled', of: 'BTCUSDT trade', count: 1, ids: ['1900..1901'] },
  ])
})

test('does not treat a restored row of a dropped day as the first of its sequence', async () => {
  const changes = [
    "INSERT INTO meta (key, value) SELECT 'retention:' || name, '2026-01-03T00:00:00.000Z' FROM unnest('{trades,book_ticker}'::text[]) AS name",
    "SELECT drop_chunks(name::regclass, timestamptz '2026-01-03') FROM unnest('{trades,book_ticker}'::text[]) AS name",
    // A retried dead letter, and a reread quote.
    `INSERT INTO trades SELECT timestamptz '2026-01-01', NULL, symbol, event_type, epoch, 1000, price, quantity, first_trade_id,
       last_trade_id, is_buyer_maker, ingestion_timestamp, source FROM trades WHERE ${BTC_TRADES} AND trade_id = 1050`,
    "INSERT INTO book_ticker VALUES ('2026-01-01', 'BTCUSDT', 7000, 60000, 1, 60000.01, 2)",
  ]
  const audit = await market.auditAfter(changes)
  assert.deepEqual(failuresOf(audit), [])
  assert.deepEqual([sequenceOf(audit).firstId, sequenceOf(audit).missing], [1048, 0])
  const text = renderAudit(audit)
  assert.match(text, /BTCUSDT: 1 trade row below retention.*\n +1000 at 2026-01-01T00:00:00.000Z/)
  assert.match(text, /BTCUSDT: 1 bookTicker row below retention.*\n +7000 at 2026-01-01T00:00:00.000Z/)
  assert.doesNotMatch(text, /ETHUSDT: .*below retention/)
  // A hole above it counts.
  const holed = await market.auditAfter([...changes, 'DELETE FROM trades WHERE trade_id = 1060'])
  assert.equal(sequenceOf(holed).unexplained, 1)
  // A range that ends below it has nothing to check.
  const scope = { symbols: null, fromMs: null, toMs: Date.UTC(2026, 0, 2) }
  assert.equal((await market.auditAfter(changes, { scope })).verdict, 'empty')
})

test('shows no ledger row outside the range, by its times or by its ids', async () => {
  const timed = (from: number, hours: string, status = 'open') => [
    gapSql(status === 'open' ? 'open' : 'unrecoverable', from, from),
    `UPDATE gaps SET from_time = '2026-01-${hours}:00', to_time = '2026-01-${hours}:30' WHERE from_id = ${from}`,
  ]
  const window = (epoch: number, day: string, cause = 'retention') =>
    `INSERT INTO gaps (gap_id, revision, symbol, event_type, epoch, from_time, to_time, cause, status, reason, detected_at, updated_at)
     VALUES ('w${epoch}', 1, 'BTCUSDT', 'trade', ${epoch}, '${day} 10:00', '${day} 11:00', '${cause}', 'unrecoverable', 'gone', '2026-01-05', '2026-01-05')`
  const changes = [
    ...timed(1010, '01 10'),
    ...timed(1030, '02 10'),
    ...timed(1060, '03 10'),
    // Without times the ids decide; both were detected on the 5th.
    gapSql('open', 1034, 1035),
    gapSql('open', 1080, 1081),
    window(1, '2026-01-02'),
    window(2, '2026-01-03'),
    window(3, '2026-01-02', 'reset'),
    // Belongs to no stored sequence.
    gapSql('open', 7, 8, { symbol: 'BNBUSDT' }),
  ]
  const scope = {
    symbols: null,
    fromMs: parseUtc('--from', '2026-01-02', 'from'),
    toMs: parseUtc('--to', '2026-01-02', 'to'),
  }
  const shown = async (audit: Report) =>
    audit.findings
      .filter(({ check }) => check === 'ledger')
      .map(({ kind, count, examples }) => [kind, count, ...examples.map(({ from }) => from)])
  const cut = await market.auditAfter(changes, { scope })
  assert.deepEqual(await shown(cut), [
    ['open', 2, 1030, 1034],
    ['window', 1, null],
    ['window', 1, null],
  ])
  assert.match(
    renderAudit(cut),
    /BTCUSDT trade \(epoch 1\): 1 window in which trades with unknown ids may be missing\n +w1: retention from 2026/,
  )
  assert.doesNotMatch(renderAudit(cut), /BNBUSDT/)
  const whole = await market.auditAfter(changes)
  assert.deepEqual(await shown(whole), [
    ['open', 1, 7],
    ['open', 5, 1010, 1030, 1034, 1060, 1080],
    ['window', 1, null],
    ['window', 1, null],
    ['window', 1, null],
  ])
})

test('refuses an unknown symbol, and checks one that only the ledger or a dead letter has', async () => {
  const of = (...symbols: string[]) => ({ scope: { symbols, fromMs: null, toMs: null } })
  await assert.rejects(
    verify(market.database, { ...AUDIT_OPTIONS, ...of('BTCUSDT', 'BTCUSDC', 'ETHUSDC') }),
    (error) =>
      error instanceof TapelineError &&
      error.code === 'INPUT' &&
      error.message === '--symbol BTCUSDC, ETHUSDC: no row, ledger row or dead letter has these symbols',
  )
  const known = [gapSql('open', 1, 2, { symbol: 'BTCUSDC' }), deadLetterSql(1, '{"e":"trade","s":"ETHUSDC"}')]
  assert.equal((await market.auditAfter(known, of('BTCUSDC', 'ETHUSDC'))).verdict, 'empty')
})

test('finds a day dropped from the middle', async () => {
  const audit = await market.auditAfter([
    "SELECT drop_chunks('trades', timestamptz '2026-01-03', newer_than => timestamptz '2026-01-02')",
  ])
  assert.equal(sequenceOf(audit).unexplained, 24)
})

test('lists at most the requested number of cases, and counts all', async () => {
  const audit = await market.auditAfter([`DELETE FROM trades WHERE ${BTC_TRADES} AND trade_id % 10 = 5`], {
    limit: 2,
  })
  assert.deepEqual(failuresOf(audit), [
    { what: 'continuity: missing', of: 'BTCUSDT trade', count: 10, ids: ['1005', '1015'] },
  ])
  assert.match(renderAudit(audit), / 1005, 1015, …\n/)
})

test('does not report an empty database as clean', async () => {
  const audit = await market.auditAfter(['TRUNCATE trades', 'TRUNCATE book_ticker', gapSql('filled', 1, 2)])
  assert.equal(audit.verdict, 'empty')
  const text = renderAudit(audit)
  assert.match(text, /nothing is stored, so nothing was audited/)
  assert.match(text, /BTCUSDT: 1 ledger row of trade, without stored rows/)
})
