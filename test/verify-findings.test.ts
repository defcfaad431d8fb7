import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { TapelineError } from '../src/foundation/runtime/errors.ts'
import { renderAudit } from '../src/tools/verify/report.ts'
import { REPORT, type Report } from '../src/tools/verify/report-types.ts'
import { parseUtc } from '../src/tools/verify/scope.ts'
import { type AuditOptions, verify } from '../src/tools/verify/verify.ts'
import { mayStillArrive } from '../src/tools/verify/watermark.ts'
import { AUDIT_OPTIONS, deadLetterSql, failuresOf, gapSql, marketOfSuite } from './support/audited-market.ts'
import { recordingSql } from './support/recordings.ts'

const BTC_TRADES = "symbol = 'BTCUSDT' AND event_type = 'trade'"
/** Removes trades of BTCUSDT. */
const removed = (which: string) => `DELETE FROM trades WHERE ${BTC_TRADES} AND trade_id ${which}`
const sequenceOf = ({ sequences }: Report) =>
  sequences.find(({ symbol, eventType }) => symbol === 'BTCUSDT' && eventType === 'trade') ??
  assert.fail('the sequence is not in the result')

const market = marketOfSuite()

/** Audits after changes that are rolled back. */
const CASES: ReadonlyArray<{
  readonly title: string
  readonly changes: readonly string[]
  readonly options?: Parameters<typeof market.auditAfter>[1]
  /** As {@link failuresOf} words them. */
  readonly failures?: readonly string[]
  /** What the report says. */
  readonly says?: readonly RegExp[]
  readonly and?: (audit: Report) => void
}> = [
  {
    title: 'finds a removed row, and names it',
    changes: [removed('IN (1005, 1006, 1050)')],
    failures: ['continuity: missing, BTCUSDT trade, 3: 1005..1006 1050'],
    says: [
      /BTCUSDT trade: 3 missing without explanation\n +1005\.\.1006, 1050\n/,
      /BTCUSDT: 3 aggTrades with trades that are not stored/,
    ],
  },
  {
    title: 'finds a removed aggTrade',
    changes: ["DELETE FROM trades WHERE symbol = 'BTCUSDT' AND event_type = 'aggTrade' AND trade_id = 520"],
    failures: ['continuity: missing, BTCUSDT aggTrade, 1: 520'],
  },
  {
    title: 'treats exactly the ids in the ledger or in dead letters as explained',
    changes: [
      removed('BETWEEN 1010 AND 1019'),
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
    ],
    failures: [
      'continuity: missing, BTCUSDT trade, 4: 1016..1019',
      'ledger: filled, BTCUSDT trade, 1: 1016..1017',
    ],
    says: [
      /BTCUSDT trade: 1 gap still open\n +1008\.\.1012 BTCUSDT\/trade\/0\/1008: reconnect since/,
      /BTCUSDT trade: 1 dead letter: received but not stored\n +1013 p is not a decimal/,
      /1 dead letter without a usable id: p is not a decimal\n +t, partition 0, offset 3/,
    ],
    and: (audit) => {
      const { missing, explained, unexplained, saidFilled } = sequenceOf(audit)
      assert.deepEqual([missing, explained, unexplained, saidFilled], [10, 6, 4, 2])
      assert.equal(mayStillArrive(audit, null), false, 'unexplained ids are missing, however long one waits')
    },
  },
  {
    title: 'finds contradictory ledger rows, but accepts adjacent ones and those of another stream',
    changes: [
      removed('BETWEEN 1010 AND 1019'),
      gapSql('unrecoverable', 1010, 1030),
      gapSql('filled', 1020, 1022),
      gapSql('open', 1025, 1026),
      gapSql('filled', 1031, 1032),
      gapSql('filled', 1020, 1022, { eventType: 'aggTrade' }),
      gapSql('filled', 1020, 1022, { epoch: 1 }),
      gapSql('filled', 1020, 1022, { symbol: 'ETHUSDT' }),
    ],
    failures: [
      'ledger: filled, BTCUSDT aggTrade, 1: 1020..1022',
      'ledger: overlap, BTCUSDT trade, 2: 1020..1022 1025..1026',
    ],
    says: [/BTCUSDT trade: 2 ledger rows with ids that are also in another row/],
  },
  {
    title: 'finds a filled gap whose last ids are missing, and expects none below the first stored id',
    changes: [removed('>= 1098'), gapSql('filled', 1090, 1099), gapSql('filled', 900, 1001)],
    failures: ['ledger: filled, BTCUSDT trade, 1: 1090..1099'],
    says: [/BTCUSDT\/trade\/0\/1090: 2 not stored/],
  },
  {
    title: 'accepts a filled gap if the missing id is a dead letter',
    changes: [
      removed('= 1013'),
      gapSql('filled', 1010, 1017),
      deadLetterSql(1, '{"e":"trade","s":"BTCUSDT","t":1013,"p":"abc"}'),
    ],
    and: (audit) => assert.equal(sequenceOf(audit).unexplained, 0),
  },
  {
    title: 'reports a partly filled gap',
    changes: [gapSql('filled', 1010, 1011), gapSql('unrecoverable', 1012, 1012)],
    says: [/1 gap partly filled.*\n +1010\.\.1011 .*the rest 1012\.\.1012 is unrecoverable/],
  },
  {
    title: 'compares the ids of each epoch separately',
    changes: [
      `UPDATE trades SET epoch = 1, trade_id = trade_id - 1050, first_trade_id = first_trade_id - 1050, last_trade_id = last_trade_id - 1050
       WHERE event_type = 'trade' AND symbol = 'BTCUSDT' AND trade_id >= 1050`,
      `UPDATE trades SET epoch = 1, trade_id = trade_id - 525, first_trade_id = first_trade_id - 1050, last_trade_id = last_trade_id - 1050
       WHERE event_type = 'aggTrade' AND symbol = 'BTCUSDT' AND trade_id >= 525`,
      'DELETE FROM trades WHERE epoch = 1 AND trade_id = 7',
      // A dead letter has its message's epoch in a header: it explains an id of that epoch only.
      "DELETE FROM trades WHERE epoch = 1 AND event_type = 'trade' AND trade_id = 9",
      deadLetterSql(1, '{"e":"trade","s":"BTCUSDT","t":9}', 1),
      deadLetterSql(2, '{"e":"trade","s":"BTCUSDT","t":7}'),
    ],
    failures: ['continuity: missing, BTCUSDT trade, 1: 7', 'continuity: missing, BTCUSDT aggTrade, 1: 7'],
    says: [/BTCUSDT trade \(epoch 1\): 1 missing/],
  },
  {
    title: 'finds a day dropped from the middle',
    changes: [
      "SELECT drop_chunks('trades', timestamptz '2026-01-03', newer_than => timestamptz '2026-01-02')",
    ],
    failures: ['BTCUSDT', 'ETHUSDT'].flatMap((symbol) => [
      `continuity: missing, ${symbol} trade, 24: 1024..1047`,
      `continuity: missing, ${symbol} aggTrade, 12: 512..523`,
    ]),
  },
  {
    title: 'lists at most the requested number of cases, and counts all',
    changes: [removed('% 10 = 5')],
    options: { limit: 2 },
    failures: ['continuity: missing, BTCUSDT trade, 10: 1005 1015'],
    says: [/ 1005, 1015, …\n/],
  },
  {
    title: 'does not report an empty database as clean',
    changes: ['TRUNCATE trades', 'TRUNCATE book_ticker', gapSql('filled', 1, 2)],
    says: [
      /nothing is stored, so nothing was audited/,
      /BTCUSDT: 1 ledger row of trade, without stored rows/,
    ],
    and: ({ verdict }) => assert.equal(verdict, 'empty'),
  },
]

for (const { title, changes, options, failures = [], says = [], and = () => {} } of CASES)
  test(title, async () => {
    const audit = await market.auditAfter(changes, options)
    assert.deepEqual(failuresOf(audit), failures)
    if (failures.length > 0) assert.equal(audit.verdict, 'not clean')
    for (const pattern of says) assert.match(renderAudit(audit), pattern)
    and(audit)
  })

test('finds nothing in complete data, and prints JSON as documented', async () => {
  const audit = await verify(market.database, AUDIT_OPTIONS)
  assert.deepEqual(REPORT.parse(JSON.parse(JSON.stringify(audit))), audit)
  assert.equal(audit.verdict, 'clean')
  assert.deepEqual(audit.findings, [])
  assert.deepEqual(
    audit.sequences.map((one) => `${one.symbol} ${one.eventType} ${one.rows}: ${one.firstId}..${one.lastId}`),
    ['BTCUSDT', 'ETHUSDT'].flatMap((symbol) => [
      `${symbol} trade 100: 1000..1099`,
      `${symbol} aggTrade 50: 500..549`,
    ]),
  )
  assert.deepEqual(
    audit.quotes.map(({ symbol, rows }) => `${symbol} ${rows}`),
    ['BTCUSDT 90', 'ETHUSDT 90'],
  )
  assert.match(renderAudit(audit), /no duplicates, no mismatches/)
})

test('what was not checked of several symbols is one line, with the number of all and those with the most', async () => {
  const audit = await verify(market.database, AUDIT_OPTIONS)
  const notChecked = Array.from({ length: 7 }, (_, i) => ({
    what: 'rows of a kind',
    symbol: `S${i}`,
    count: 1000 + i,
    examples: [],
  }))
  assert.match(
    renderAudit({ ...audit, notChecked }),
    /^ {2}S6 1,006, S5 1,005, S4 1,004, S3 1,003, S2 1,002 and 2 other symbols: 7,021 rows of a kind$/m,
  )
  assert.match(
    renderAudit({ ...audit, notChecked: notChecked.slice(0, 1) }),
    /^ {2}S0: 1,000 rows of a kind$/m,
  )
})

test('begins where the consumer began, and reports older stored rows', async () => {
  const start = (fields: object) =>
    `INSERT INTO meta (key, value) VALUES ('start:BTCUSDT trade', '${JSON.stringify({ symbol: 'BTCUSDT', eventType: 'trade', epoch: 0, id: 1040, timeMs: Date.now(), ...fields })}')`
  const holes = [removed('IN (1005, 1006, 1030, 1060)'), gapSql('filled', 1000, 1008)]
  const audit = await market.auditAfter([...holes, start({})])
  assert.deepEqual(failuresOf(audit), ['continuity: missing, BTCUSDT trade, 1: 1060'])
  const { missing, beforeStart, rows, firstId } = sequenceOf(audit)
  assert.deepEqual([missing, beforeStart, rows, firstId], [1, 37, 96, 1000])
  assert.match(
    renderAudit(audit),
    /BTCUSDT: 37 trade rows from before the consumer's first start: .*\n +1000\.\.1039/,
  )
  // Nothing older is stored, or everything is of an earlier epoch.
  assert.equal(sequenceOf(await market.auditAfter([start({ id: 1000 })])).beforeStart, 0)
  const older = await market.auditAfter([...holes, start({ epoch: 1, id: 5 })])
  assert.deepEqual([older.verdict, sequenceOf(older).beforeStart], ['clean', 96])
  // Rows of an earlier epoch with later times: the epoch count was lost, and these rows are checked.
  const early = start({ epoch: 1, id: 5, timeMs: 1_500_000_000_000 })
  const recounted = await market.auditAfter([...holes, early])
  assert.deepEqual([recounted.verdict, sequenceOf(recounted).beforeStart], ['not clean', 0])
  // A later epoch begins with its first row.
  const begun = `UPDATE trades SET epoch = 1 WHERE ${BTC_TRADES} AND trade_id >= 1050`
  const later = await market.auditAfter([removed('IN (1005, 1006, 1030, 1060)'), begun, start({ id: 1040 })])
  assert.deepEqual(failuresOf(later), ['continuity: missing, BTCUSDT trade, 1: 1060'])
})

test('S8 checks a sequence after a reset from its first id, and treats the window before it as explained', async () => {
  const reset = `INSERT INTO gaps (gap_id, revision, symbol, event_type, epoch, from_time, to_time, cause, status, reason, detected_at, updated_at)
    VALUES ('BTCUSDT/trade/1/50', 1, 'BTCUSDT', 'trade', 1, '2026-01-02 23:00', '2026-01-03 04:00', 'reset', 'unrecoverable', 'ids', '2026-01-03', '2026-01-03')`
  const begun = `UPDATE trades SET epoch = 1, trade_id = trade_id - 1000 WHERE ${BTC_TRADES} AND trade_id >= 1050`
  assert.deepEqual(failuresOf(await market.auditAfter([begun, reset])), [])
  const holed = await market.auditAfter([begun, reset, `${removed('IN (60, 61)')} AND epoch = 1`])
  assert.equal(failuresOf(holed)[0], 'continuity: missing, BTCUSDT trade, 2: 60..61')
})

/** What the audit says about announcements after changes. */
async function recordingsAfter(
  changes: readonly string[],
  options: Partial<AuditOptions> = {},
): Promise<string[]> {
  return (await market.auditAfter(changes, options)).findings
    .filter(({ check }) => check === 'recordings')
    .map(({ kind, severity, symbol, eventType }) => `${kind} ${severity} ${symbol} ${eventType}`)
}

const START = recordingSql('2026-01-01T00:00:00Z')
/** Up to the last trade. */
const QUOTES = `INSERT INTO book_ticker SELECT timestamptz '2026-01-01' + n * interval '1 hour', symbol, 7000 + n * 3, 60000, 1, 60000.01, 2
  FROM generate_series(90, 98) AS n, unnest('{BTCUSDT,ETHUSDT}'::text[]) AS symbol`
const NO_QUOTES = "DELETE FROM book_ticker WHERE symbol = 'ETHUSDT'"
const EARLY_QUOTES = "DELETE FROM book_ticker WHERE ingestion_timestamp > '2026-01-02 04:00'"
const LATE = "symbol = 'ETHUSDT' AND trade_time > '2026-01-03'"
const FEWER = recordingSql('2026-01-02T00:00:00Z', { event_types: ['trade', 'aggTrade'] })

for (const [title, changes, expected] of [
  ['complete rows', [START], []],
  [
    'no trade of a symbol',
    [START, "DELETE FROM trades WHERE symbol = 'ETHUSDT' AND event_type = 'trade'"],
    ['absent failure ETHUSDT trade'],
  ],
  ['no quote of a symbol', [START, NO_QUOTES], ['absent failure ETHUSDT bookTicker']],
  [
    'trades that ended',
    [START, `DELETE FROM trades WHERE event_type = 'trade' AND ${LATE}`],
    ['ended failure ETHUSDT trade'],
  ],
  [
    'a symbol that never delivered',
    [recordingSql('2026-01-01T00:00:00Z', { symbols: ['NEVERUSDT'] })],
    ['silent notice NEVERUSDT null'],
  ],
  [
    'too short a time to draw conclusions',
    [recordingSql('2027-01-01T00:00:00Z', { symbols: ['NEVERUSDT'] })],
    [],
  ],
  ['a type that is no longer recorded', [START, FEWER, EARLY_QUOTES], []],
  [
    'a type that is recorded again',
    [START, FEWER, recordingSql('2026-01-02T12:00:00Z'), EARLY_QUOTES],
    ['ended failure BTCUSDT bookTicker', 'ended failure ETHUSDT bookTicker'],
  ],
  [
    'quotes that retention dropped with the time in which the symbol traded',
    [
      ...[START, NO_QUOTES, `DELETE FROM trades WHERE ${LATE}`],
      "INSERT INTO meta (key, value) VALUES ('retention:book_ticker', '2026-01-03')",
    ],
    ['ended notice ETHUSDT null'],
  ],
  [
    'another exchange, time unit and topics',
    [
      START,
      recordingSql('2026-01-02T00:00:00Z', {
        ...{
          source: 'binance-us',
          time_unit: 'millisecond',
          topics: { trades: 'u', bookTicker: 'b', gaps: 'g' },
        },
      }),
    ],
    ['sources failure null null', 'time units failure null null', 'topics failure null null'],
  ],
] as const)
  test(`compares the rows with ingestion's announcements: ${title}`, async () => {
    assert.deepEqual(await recordingsAfter([QUOTES, ...changes]), expected)
  })

test('while messages are pending, a stream has ended only if it ends before what is stored for certain', async () => {
  const changes = [QUOTES, START, `DELETE FROM trades WHERE event_type = 'trade' AND ${LATE}`]
  const end = { topic: 't', topicId: '', partition: 0, start: 0 }
  const found = (pending: number, storedUntil?: string) =>
    recordingsAfter(changes, {
      readEnds: async () => [{ ...end, end: pending }],
      ...(storedUntil === undefined ? {} : { storedUntil: () => Date.parse(storedUntil) }),
    })
  const ended = ['ended failure ETHUSDT trade']
  assert.deepEqual(await found(1000), ended)
  assert.deepEqual(await found(5000), [], 'it is unknown')
  assert.deepEqual(await found(5000, '2026-01-03'), [], 'its next rows may be on their way')
  assert.deepEqual(await found(5000, '2026-01-04'), ended)
})

test('says that nothing was announced, and that the exchange was not asked about a silent symbol', async () => {
  const notChecked = async (changes: readonly string[], options: object = {}) =>
    (await market.auditAfter(changes, options)).notChecked.flatMap(({ what, examples }) =>
      /announcement|--exchange/.test(what) ? [[what, ...examples.map(({ detail }) => detail)]] : [],
    )
  const none = 'streams that never delivered or ended: the database has no announcement of what is recorded'
  assert.deepEqual(await notChecked([]), [[none]])
  assert.deepEqual(await notChecked([START]), [])
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
  const found = (shard: string) =>
    recordingsAfter([
      recordingSql('2026-01-01T00:00:00Z', { shard: '0/2', symbols: ['BTCUSDT'] }),
      recordingSql('2026-01-01T00:00:01Z', { shard: '1/2', symbols: ['ETHUSDT'] }),
      recordingSql('2026-01-02T00:00:00Z', { shard, event_types: ['trade', 'aggTrade'] }),
      EARLY_QUOTES,
    ])
  assert.deepEqual(await found('0/1'), [])
  // The other shard still records.
  assert.deepEqual(await found('0/2'), ['ended failure ETHUSDT bookTicker'])
})

test('distinguishes ids that are only in the ledger so far from lost ids', async () => {
  const audit = await market.auditAfter([removed('BETWEEN 1010 AND 1012'), gapSql('filled', 1010, 1015)])
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
  assert.equal(mayStillArrive({ ...audit, watermark: at(9, 20) }, first), false, 'all of Kafka is stored')
})

/** 2 January. */
const SECOND_DAY = {
  symbols: null,
  fromMs: parseUtc('--from', '2026-01-02', 'from'),
  toMs: parseUtc('--to', '2026-01-02', 'to'),
}

test('checks only a given symbol and range, and reports nothing cut off by it as missing', async () => {
  const scope = { ...SECOND_DAY, symbols: ['BTCUSDT'] }
  const missing = (id: number) => `DELETE FROM trades WHERE event_type = 'trade' AND trade_id = ${id}`
  const audit = await market.auditAfter(
    [
      missing(1002),
      missing(1080),
      // Stored on the other side of the boundary: times need not be in the order of ids.
      `INSERT INTO trades SELECT timestamptz '2026-01-03 00:00:00.001', event_time, symbol, event_type, epoch, trade_id, price, quantity,
         first_trade_id, last_trade_id, is_buyer_maker, ingestion_timestamp, source FROM trades WHERE ${BTC_TRADES} AND trade_id = 1030`,
      `${removed('= 1030')} AND trade_time < '2026-01-03'`,
    ],
    { scope },
  )
  assert.deepEqual(
    audit.sequences.map(
      (one) => `${one.symbol} ${one.eventType} ${one.firstId}..${one.lastId} ${one.missing}`,
    ),
    ['BTCUSDT trade 1024..1047 0', 'BTCUSDT aggTrade 512..523 0'],
  )
  assert.deepEqual(failuresOf(audit), [])
  const found = await market.auditAfter([missing(1030)], { scope })
  assert.deepEqual(failuresOf(found), ['continuity: missing, BTCUSDT trade, 1: 1030'])
})

test('does not report rows dropped by retention as missing', async () => {
  const audit = await market.auditAfter([
    "SELECT drop_chunks('trades', timestamptz '2026-01-02')",
    "SELECT drop_chunks('book_ticker', timestamptz '2026-01-02')",
    gapSql('filled', 1010, 1011),
  ])
  assert.equal(audit.verdict, 'clean')
  assert.equal(sequenceOf(audit).firstId, 1024)
  const floor = "INSERT INTO meta (key, value) VALUES ('retention:trades', '2026-01-01T00:00:00.000Z')"
  const noted = await market.auditAfter([floor])
  assert.match(renderAudit(noted), /rows of trades before 2026-01-01T00:00:00.000Z: retention has dropped/)
  // Retention does not end the check of ledger ids after the last row.
  const lost = await market.auditAfter([floor, gapSql('filled', 1900, 1901)])
  assert.deepEqual(failuresOf(lost), ['ledger: filled, BTCUSDT trade, 1: 1900..1901'])
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
  const shown = (audit: Report) =>
    audit.findings
      .filter(({ check }) => check === 'ledger')
      .map(({ kind, count, examples }) => [kind, count, ...examples.map(({ from }) => from)].join(' '))
  const cut = await market.auditAfter(changes, { scope: SECOND_DAY })
  assert.deepEqual(shown(cut), ['open 2 1030 1034', 'window 1 ', 'window 1 '])
  assert.match(
    renderAudit(cut),
    /BTCUSDT trade \(epoch 1\): 1 window in which trades with unknown ids may be missing\n +w1: retention from 2026/,
  )
  assert.doesNotMatch(renderAudit(cut), /BNBUSDT/)
  const whole = await market.auditAfter(changes)
  const windows = ['window 1 ', 'window 1 ', 'window 1 ']
  assert.deepEqual(shown(whole), ['open 1 7', 'open 5 1010 1030 1034 1060 1080', ...windows])
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

const STATUSES = ['open', 'filled', 'unrecoverable'] as const

const range = fc
  .tuple(fc.integer({ min: 990, max: 1105 }), fc.integer({ min: 0, max: 12 }))
  .map(([from, length]) => ({ from, to: from + length }))

/** The stored ids, the ledger's ids, and the ids of dead letters. */
const world = fc.record({
  absent: fc.array(range, { maxLength: 8 }),
  gaps: fc.uniqueArray(fc.record({ range, status: fc.constantFrom(...STATUSES) }), {
    maxLength: 8,
    selector: ({ range }) => range.from,
  }),
  letters: fc.uniqueArray(fc.integer({ min: 990, max: 1105 }), { maxLength: 8 }),
})

const contains = (ranges: ReadonlyArray<{ from: number; to: number }>, id: number) =>
  ranges.some(({ from, to }) => from <= id && id <= to)

for (const [store, numRuns] of [
  ['tables', 40],
  ['both stores', 6],
] as const)
  test(`explains exactly the ids in the ledger or in dead letters, whatever is missing: ${store}`, async () => {
    const after = store === 'tables' ? market.auditTablesAfter : market.auditAfter
    await fc.assert(
      fc.asyncProperty(world, async ({ absent, gaps, letters }) => {
        const ids = Array.from({ length: 100 }, (_, index) => 1000 + index)
        const stored = ids.filter((id) => !contains(absent, id))
        const audit = await after([
          "DELETE FROM trades WHERE symbol = 'ETHUSDT'",
          ...absent.map(({ from, to }) => removed(`BETWEEN ${from} AND ${to}`)),
          ...gaps.map(({ range, status }) => gapSql(status, range.from, range.to)),
          ...letters.map((id, offset) => deadLetterSql(offset, `{"e":"trade","s":"BTCUSDT","t":${id}}`)),
        ])
        const [first = 0, last = -1] = [stored.at(0), stored.at(-1)]
        const missing = ids.filter((id) => id > first && id < last && !stored.includes(id))
        const ranges = (filled: boolean) =>
          gaps.filter(({ status }) => (status === 'filled') === filled).map(({ range }) => range)
        const unexplained = missing.filter((id) => !contains(ranges(false), id) && !letters.includes(id))
        const filled = unexplained.filter((id) => contains(ranges(true), id))
        const found = audit.sequences.find(({ eventType }) => eventType === 'trade')
        assert.deepEqual(
          [found?.rows ?? 0, found?.missing ?? 0, found?.unexplained ?? 0, found?.saidFilled ?? 0],
          [stored.length, missing.length, unexplained.length, filled.length],
        )
        assert.equal(audit.findings.find(({ kind }) => kind === 'missing')?.examples[0]?.from, unexplained[0])
      }),
      { numRuns },
    )
  })
