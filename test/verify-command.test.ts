import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Settling, settleTimes } from '../src/cli/audit-stored.ts'
import { PartitionFetcher } from '../src/foundation/kafka/partition-fetcher.ts'
import { writeStartOffsets } from '../src/foundation/store/consumer-offsets.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { REPORT } from '../src/tools/verify/report-types.ts'
import { parseUtc } from '../src/tools/verify/scope.ts'
import { lostTails, onlyOfRows, watermarkOf } from '../src/tools/verify/watermark.ts'
import { createArchive, MIDNIGHT_MS } from './support/archive-parts.ts'
import { archiveOf } from './support/archived-tables.ts'
import { createAuditedMarket } from './support/audited-market.ts'
import { openTestDatabase } from './support/database.ts'
import { brokers, createTestTopics } from './support/kafka.ts'
import { produce } from './support/messages.ts'
import { startTapeline } from './support/processes.ts'
import { gapRow, record, TOPIC_ID, tradeValue } from './support/records.ts'
import { until } from './support/wait-for.ts'

test("counts Kafka's messages beyond the snapshot, and treats a recreated topic as unread", () => {
  const end = { topic: 'trades', topicId: 'a', start: 10, end: 100 }
  const stored = { topic: 'trades', topicId: 'a', nextOffset: 90, leaderEpoch: -1 }
  const { partitions, pending } = watermarkOf(
    [
      { ...stored, partition: 0 },
      { ...stored, partition: 1, topicId: 'b' },
      { ...stored, partition: 3, nextOffset: 5 },
    ],
    [0, 1, 2, 3].map((partition) => ({ ...end, partition })),
  )
  assert.deepEqual(
    partitions.map(({ stored, pending }) => `${stored} ${pending}`),
    ['90 10', 'null 90', 'null 90', '5 90'],
  )
  assert.equal(pending, 280)
  const [finding, ...others] = lostTails(
    watermarkOf(
      [
        { ...stored, partition: 0 },
        { ...stored, partition: 1, nextOffset: 101 },
      ],
      [0, 1].map((partition) => ({ ...end, partition })),
    ),
  )
  assert.deepEqual([finding?.severity, finding?.count, others], ['failure', 1, []])
  assert.match(finding?.examples[0]?.detail ?? '', /trades\/1 .* 101 .* 100/)
  assert.equal(watermarkOf([{ ...stored, partition: 0 }], { notReached: 'away' }).pending, null)
})

test('accepts days and times in UTC only, and includes the whole last day', () => {
  assert.equal(parseUtc('--from', '2026-01-31', 'from'), Date.UTC(2026, 0, 31))
  assert.equal(parseUtc('--to', '2026-01-31', 'to'), Date.UTC(2026, 1, 1))
  assert.equal(parseUtc('--to', '2026-01-31T12:30', 'to'), Date.UTC(2026, 0, 31, 12, 30))
  assert.equal(parseUtc('--to', '2026-01-31 12:30:01.5Z', 'to'), Date.UTC(2026, 0, 31, 12, 30, 1, 500))
  for (const wrong of ['2026-02-30', '2026-1-1', 'yesterday', '2026-01-31T12:30+02:00', '2026-01-31T25:00'])
    assert.throws(() => parseUtc('--from', wrong, 'from'), /--from .*: no such day or time/)
})

test('prints the messages pending in Kafka and runs next to a writer', async () => {
  await using topics = await createTestTopics({ prefix: 'audit' })
  await using market = await createAuditedMarket()
  const writer = openPostgres({ url: market.url, poolMin: 0, poolMax: 1, applicationName: 'test-writer' })
  const topic = topics.env.KAFKA_TRADES_TOPIC
  const fetcher = new PartitionFetcher({ brokers: brokers(), tls: null, sasl: null }, 'test-audit', [topic])
  let isAuditing = true
  let written = 0
  const write = async () => {
    for (; isAuditing; written++) {
      await writer.query(
        `INSERT INTO trades (trade_time, symbol, event_type, trade_id, price, quantity, is_buyer_maker, ingestion_timestamp)
       VALUES ('2026-01-05', 'BNBUSDT', 'trade', $1, 1, 1, true, '2026-01-05')`,
        [written],
      )
    }
  }
  await using closed = new AsyncDisposableStack()
  closed.defer(() => writer.close())
  closed.defer(() => fetcher.close())
  closed.defer(() => {
    isAuditing = false
  })
  const topicId = (await fetcher.connect()).get(topic)?.id ?? ''
  const start = { topic, topicId, partition: 2, nextOffset: 2, leaderEpoch: -1 }
  await writeStartOffsets(market.database, [start])
  const values = Array.from({ length: 7 }, (_, id) => Buffer.from(String(id)))
  await produce(topic, 'BTCUSDT', values)
  const env = { ...topics.env, DATABASE_URL: market.url }
  const writing = write()
  await using reading = startTapeline(['verify', '--json'], { env })
  await reading.assertExit(0)
  isAuditing = false
  await writing
  const audit = REPORT.parse(JSON.parse(reading.output()))
  assert.equal(audit.watermark.notReached, null)
  assert.equal(audit.watermark.pending, 5)
  assert.equal(audit.watermark.partitions.length, 15, 'all partitions of the five topics that are consumed')
  const place = audit.watermark.partitions.find(({ pending }) => pending === 5)
  assert.deepEqual(place, { topic, partition: 2, stored: 2, end: 7, pending: 5 })
  assert.ok(written > 0, 'the writer was not blocked permanently')

  await market.database.query("DELETE FROM trades WHERE symbol = 'BTCUSDT' AND trade_id = 1020")
  const only = ['verify', '--symbol', 'btcusdt', '--from', '2026-01-01', '--to', '2026-01-03']
  await using away = startTapeline(only, { env: { DATABASE_URL: market.url, KAFKA_BROKERS: '127.0.0.1:1' } })
  await away.assertExit(1)
  assert.match(away.output(), /unknown: Kafka was not reached \(127\.0\.0\.1:1/)
  assert.match(away.output(), /BTCUSDT trade: 1 missing without explanation\n +1020\n/)
  assert.doesNotMatch(away.output(), /ETHUSDT/)
})

test('audits an archive: published days, late rows and those that are not published yet', async () => {
  await using archive = await createArchive()
  const at = (id: number) => ({ t: id, T: MIDNIGHT_MS + id, E: MIDNIGHT_MS + id })
  const trades = (...ids: number[]) => ids.map((id) => record(tradeValue(at(id))))
  await archive.add('trades', trades(1, 2, 3, 6))
  await archive.publish()
  // Late rows, one of them again, are in a segment.
  await archive.add('trades', trades(5, 6, 8))
  await archive.add('gaps', [
    record(Buffer.from(JSON.stringify(gapRow({ from_id: 4, to_id: 4 }))), null, { schema: 'gap/1' }),
  ])
  const env = {
    KAFKA_BROKERS: '127.0.0.1:1',
    ARCHIVE_URL: archive.folder,
    DATABASE_URL: 'postgres://127.0.0.1:1/none',
  }
  await using audited = startTapeline(['verify', '--archive', '--json'], { env })
  await audited.assertExit(1)
  const { sequences, findings } = REPORT.parse(JSON.parse(audited.output()))
  const { rows, missing, explained, unexplained } = sequences[0] ?? assert.fail('no sequence')
  assert.deepEqual([rows, missing, explained, unexplained], [6, 2, 1, 1])
  assert.deepEqual(findings[0]?.examples, [{ from: 7, to: 7, detail: '' }])
  await using none = startTapeline(['verify', '--archive'], {
    env: { ...env, ARCHIVE_URL: `${archive.folder}/none` },
  })
  await none.assertExit(1)
  assert.match(none.output(), /ARCHIVE_URL/)
})

test('compares an archive with the tables, and names each symbol and day that differs', async () => {
  await using market = await createAuditedMarket()
  await using archive = await archiveOf(market.database)
  const env = { KAFKA_BROKERS: '127.0.0.1:1', ARCHIVE_URL: archive.folder, DATABASE_URL: market.url }
  const compare = async (...args: string[]) => {
    await using done = startTapeline(['verify', '--archive', '--against-tables', ...args], { env })
    const { code } = await done.exit()
    return { code, text: done.output() }
  }
  const equal = await compare()
  assert.equal(equal.code, 0, equal.text)
  assert.match(equal.text, /Compared 480 rows/)
  for (const sql of [
    "UPDATE trades SET price = price + 0.00000001 WHERE symbol = 'BTCUSDT' AND event_type = 'trade' AND trade_id = 1030",
    "DELETE FROM trades WHERE symbol = 'ETHUSDT' AND event_type = 'aggTrade' AND trade_id = 500",
    "UPDATE book_ticker SET symbol = 'BNBUSDT' WHERE symbol = 'BTCUSDT' AND update_id = 7003",
  ])
    await market.database.query(sql)
  const { code, text } = await compare()
  assert.equal(code, 1, text)
  const lines = text.split('\n').filter((line) => line.includes('2026-01-0') && / rows? in /.test(line))
  assert.deepEqual(lines, [
    'raw_trades 2026-01-02 BTCUSDT: 24 rows in both, with other values',
    'agg_trades 2026-01-01 ETHUSDT: 11 rows in the tables, 12 in the archive',
    'book_ticker 2026-01-01 BNBUSDT: 1 row in the tables, 0 in the archive',
    'book_ticker 2026-01-01 BTCUSDT: 23 rows in the tables, 24 in the archive',
  ])
  const other = await compare('--symbol', 'ETHUSDT', '--from', '2026-01-02')
  assert.equal(other.code, 0, other.text)
  const none = await compare('--from', '2027-01-01')
  assert.equal(none.code, 1, none.text)
  assert.match(none.text, /nothing was compared/)
})

test('an audit of an archive looks again for as long as segments may be open', () => {
  let nowMs = 0
  const times = settleTimes({ ARCHIVE_FLUSH_INTERVAL_MS: 300_000 }, true)
  const settling = new Settling(times, () => nowMs)
  const at = watermarkOf([], [])
  const looksAgain = (afterMs: number) => {
    nowMs = 600_000 + afterMs
    return settling.wantsLater(at, (first) => first === null || first === at)
  }
  assert.deepEqual([0, 120_000, 299_000, 330_000].map(looksAgain), [true, true, true, false])
  assert.equal(
    settling.wantsLater(at, () => false),
    false,
  )
  assert.equal(settleTimes({ ARCHIVE_FLUSH_INTERVAL_MS: 300_000 }, false).limitMs, 30_000)
})

test('a comparison of both stores waits for rows that the archive has not committed yet', async () => {
  await using market = await openTestDatabase('migrated')
  await using archive = await createArchive()
  const offset = { topic: 'trades', topicId: TOPIC_ID, partition: 0, nextOffset: 2, leaderEpoch: -1 }
  await writeStartOffsets(market.database, [offset])
  const trade = (id: number) => record(tradeValue({ t: id }))
  await market.database.query(
    `INSERT INTO trades (trade_time, event_time, symbol, event_type, trade_id, price, quantity, is_buyer_maker, ingestion_timestamp)
     SELECT '2024-08-08T23:54:15.342Z', '2024-08-08T23:54:15.343Z', 'BTCUSDT', 'trade', id, 61837.63, 0.02, true, '2024-08-08T23:54:15.400123Z'
     FROM generate_series(1, 2) AS id`,
  )
  await archive.add('trades', [trade(1)])
  const env = {
    ...{ KAFKA_BROKERS: '127.0.0.1:1', ARCHIVE_URL: archive.folder, DATABASE_URL: market.url },
    ARCHIVE_FLUSH_INTERVAL_MS: '1000',
  }
  await using comparing = startTapeline(['verify', '--archive', '--against-tables'], { env })
  await until('the first look', () => comparing.output().includes('Missing rows may still arrive'))
  await archive.add('trades', [trade(2)])
  await comparing.assertExit(0, 60_000)
  // The archive has all that the tables have: no row is on its way.
  await market.database.query('DELETE FROM trades WHERE trade_id = 2')
  await using different = startTapeline(['verify', '--archive', '--against-tables'], { env })
  await different.assertExit(1)
  assert.match(different.output(), /1 row in the tables, 2 in the archive/)
  assert.doesNotMatch(different.output(), /may still arrive/)
})

test('does not count the messages of a Kafka that no setting names and that is not the one of the rows', async () => {
  const end = { topic: 'trades', topicId: 'a', partition: 0, start: 10, end: 100 }
  const stored = { topic: 'trades', topicId: 'a', partition: 0, nextOffset: 90, leaderEpoch: -1 }
  const ends = onlyOfRows({ read: async () => [end], close: async () => {} }, 'localhost:9092')
  assert.deepEqual(await ends.read([stored]), [end])
  for (const others of [[], [{ ...stored, topicId: 'b' }]]) {
    const { notReached } = watermarkOf(others, await ends.read(others))
    assert.equal(notReached, 'localhost:9092 has other topics than those of the rows; set KAFKA_BROKERS')
  }
})

test('reports briefly that a new database is empty and that a symbol is unknown', async () => {
  await using topics = await createTestTopics({ prefix: 'audit' })
  await using server = await openTestDatabase('migrated')
  const env = { ...topics.env, DATABASE_URL: server.url }
  await using empty = startTapeline(['verify'], { env })
  await empty.assertExit(0)
  assert.match(empty.output(), /Verdict: nothing is stored, so nothing was audited\.\n/)
  assert.doesNotMatch(empty.output(), /Pending in Kafka|oldest day|partition/)
  await using unknown = startTapeline(['verify', '--symbol', 'BTCUSDT'], { env })
  await unknown.assertExit(2)
  assert.match(unknown.output(), /--symbol BTCUSDT: no row, ledger row or dead letter has this symbol\n/)

  await produce(topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', [Buffer.from('1')])
  await using pending = startTapeline(['verify'], { env })
  await pending.assertExit(0)
  assert.match(pending.output(), /1 message is not stored yet\./)
  const partitions = pending.output().match(/^.*\.(trades|book_ticker|gaps|dead_letters) +\d.*$/gm)
  assert.equal(partitions?.length, 1, pending.output())
})

test('refuses an invalid range or limit with exit code 2, before it opens anything', async () => {
  for (const [args, said] of [
    [['--from', '2026-02-30'], /--from 2026-02-30: no such day or time/],
    [['--from', '2026-02-02', '--to', '2026-02-01'], /is not before/],
    [['--symbol', 'BTC-USDT'], /--symbol BTC-USDT: not a symbol/],
    [['--limit', '0'], /Expected a number from 1/],
  ] as const) {
    await using wrong = startTapeline(['verify', ...args])
    await wrong.assertExit(2)
    assert.match(wrong.output(), said)
  }
})
