import assert from 'node:assert/strict'
import { test } from 'node:test'
import { renderAudit } from '../src/tools/verify/report.ts'
import { deadLetterSql, failuresOf, marketOfSuite, outageSql } from './support/audited-market.ts'

const BTC_TRADES = "symbol = 'BTCUSDT' AND event_type = 'trade'"

const BTC_AGGREGATES = "symbol = 'BTCUSDT' AND event_type = 'aggTrade'"

const market = marketOfSuite()

test('names the aggTrade that covers a removed first or last trade', async () => {
  const audit = await market.auditAfter([
    `DELETE FROM trades WHERE ${BTC_TRADES} AND trade_id IN (1000, 1099)`,
  ])
  const edge = audit.notChecked.find(({ what }) => what.includes('extending past the first or the last'))
  assert.deepEqual(edge?.examples, [
    { from: 500, to: 500, detail: 'trades 1000..1001; 1 of them is stored' },
    { from: 549, to: 549, detail: 'trades 1098..1099; 1 of them is stored' },
  ])
  assert.equal(audit.verdict, 'clean', 'a connection that began between two trades has the same result')
})

test('finds rows of both kinds stored twice with different times', async () => {
  for (const [type, id] of [
    ['trade', 1020],
    ['aggTrade', 530],
  ]) {
    const audit = await market.auditAfter([
      `INSERT INTO trades SELECT trade_time + interval '1 day', event_time + interval '1 day', symbol, event_type, epoch, trade_id, price, quantity,
         first_trade_id, last_trade_id, is_buyer_maker, ingestion_timestamp + interval '1 day', source
       FROM trades WHERE symbol = 'BTCUSDT' AND event_type = '${type}' AND trade_id = ${id}`,
    ])
    assert.deepEqual(failuresOf(audit), [`duplicates: doubled, BTCUSDT ${type}, 1: ${id}`])
    assert.match(renderAudit(audit), new RegExp(`BTCUSDT ${type}: 1 doubled[^\\n]*\\n +${id} 2 rows, from`))
  }
})

test('treats the trades of an aggregate in a dead letter as covered, and no others', async () => {
  // Two aggregates have the id 520. The second, of trades 1042 and 1043, is a dead letter, so
  // later ids are lower by one.
  const shifted = [
    `DELETE FROM trades WHERE ${BTC_AGGREGATES} AND trade_id = 521`,
    `UPDATE trades SET trade_id = trade_id - 1 WHERE ${BTC_AGGREGATES} AND trade_id > 521`,
  ]
  const letterOf = (l: number) =>
    deadLetterSql(1, `{"e":"aggTrade","s":"BTCUSDT","a":520,"p":"1","q":"1","f":1042,"l":${l}}`)
  const found = async (changes: string[]) => failuresOf(await market.auditAfter(changes))
  const failure = 'aggregate tiling: not tiling, BTCUSDT aggTrade, 1: 521'
  assert.deepEqual(await found(shifted), [failure])
  assert.deepEqual(await found([...shifted, letterOf(1042)]), [failure])
  assert.deepEqual(await found([...shifted, letterOf(1043)]), [])
})

test('judges restarted update ids by the reset in the ledger', async () => {
  const again = (minutes: number) =>
    `INSERT INTO book_ticker SELECT ingestion_timestamp + interval '4 days' + interval '${minutes} minutes', symbol, update_id, bid_price,
       bid_quantity, ask_price, ask_quantity FROM book_ticker
     WHERE ingestion_timestamp < '2026-01-03' AND (${minutes} = 0 OR (symbol = 'BTCUSDT' AND update_id = 7030))`
  const reset = outageSql('2026-01-04T17:00:00Z', '2026-01-05T00:00:00Z', 'reset')
  const found = async (changes: string[]) => failuresOf(await market.auditAfter(changes))
  const doubled = (symbol: string) =>
    `quote repeats: doubled, ${symbol} bookTicker, 48: 7000 7003 7006 7009 7012`
  assert.deepEqual(await found([again(0)]), ['BTCUSDT', 'ETHUSDT'].map(doubled))
  // The ledger has a reset of BTCUSDT only; an id stored twice since then is a duplicate.
  assert.deepEqual(await found([again(0), again(5), reset]), [
    doubled('ETHUSDT'),
    'quote repeats: doubled, BTCUSDT bookTicker, 1: 7030',
  ])
})

test('finds a quantity, price or side changed by one digit, in a trade and in an aggTrade', async () => {
  for (const [kind, change] of [
    ['quantity', 'quantity = quantity + 0.00000001'],
    ['price', 'price = price + 0.00000001'],
    ['side', 'is_buyer_maker = NOT is_buyer_maker'],
  ]) {
    for (const row of [
      `event_type = 'trade' AND trade_id = 1020`,
      `event_type = 'aggTrade' AND trade_id = 510`,
    ]) {
      const audit = await market.auditAfter([
        `UPDATE trades SET ${change} WHERE symbol = 'BTCUSDT' AND ${row}`,
      ])
      assert.deepEqual(
        failuresOf(audit),
        [`aggregate quantities: ${kind}, BTCUSDT aggTrade, 1: 510`],
        `${change} where ${row}`,
      )
    }
  }
  const audit = await market.auditAfter([
    `UPDATE trades SET quantity = 5 WHERE ${BTC_AGGREGATES} AND trade_id = 510`,
  ])
  assert.match(renderAudit(audit), /510 5, of trades 1020\.\.1021: 0\.00000013/)
})

test('finds two changed prices with an unchanged sum', async () => {
  const audit = await market.auditAfter([
    `UPDATE trades SET price = price + 1 WHERE ${BTC_TRADES} AND trade_id = 1020`,
    `UPDATE trades SET price = price - 1 WHERE ${BTC_TRADES} AND trade_id = 1021`,
  ])
  assert.deepEqual(failuresOf(audit), ['aggregate quantities: price, BTCUSDT aggTrade, 1: 510'])
})

test('finds an aggTrade whose trades do not follow those of the previous one', async () => {
  const audit = await market.auditAfter([
    `UPDATE trades SET first_trade_id = 1021 WHERE ${BTC_AGGREGATES} AND trade_id = 510`,
  ])
  assert.deepEqual(failuresOf(audit), [
    'aggregate quantities: quantity, BTCUSDT aggTrade, 1: 510',
    'aggregate tiling: not tiling, BTCUSDT aggTrade, 1: 510',
  ])
})

test('excludes aggTrades that the exchange has invalidated, and reports their number', async () => {
  const audit = await market.auditAfter([
    `UPDATE trades SET first_trade_id = NULL, last_trade_id = NULL, price = 0, quantity = 0
     WHERE ${BTC_AGGREGATES} AND trade_id = 510`,
  ])
  assert.equal(audit.verdict, 'clean')
  assert.match(renderAudit(audit), /BTCUSDT: 1 aggTrade invalidated by the exchange/)
})

test('compares no aggTrade with trades of another epoch with the same ids, and reports the excluded ones', async () => {
  const btc = `symbol = 'BTCUSDT' AND trade_time >= '2026-01-03'`
  const covers = `first_trade_id = first_trade_id - 44, last_trade_id = last_trade_id - 44`
  const began = (type: string, change: string) =>
    `UPDATE trades SET ${change} WHERE ${btc} AND event_type = '${type}'`
  // From 3 January on: the trades 1048.. and the aggTrades 524.. that cover them.
  const cases = {
    // The ids 1004.. existed before, as other trades.
    'only the trade ids restarted': {
      changes: [began('trade', 'epoch = 1, trade_id = trade_id - 44'), began('aggTrade', covers)],
      leftOut:
        /BTCUSDT: 26 aggTrades with trades of another epoch.*\n +524 at 2026-01-03 00:00:00\S*, of trades 1004\.\.1005\n/,
    },
    'only the aggTrade ids restarted': {
      changes: [began('aggTrade', 'epoch = 1, trade_id = trade_id - 520')],
      leftOut: /BTCUSDT: 26 aggTrades with trades of another epoch.*\n +4 at /,
    },
    'the aggTrade ids restarted one trade later': {
      changes: [
        began('trade', 'epoch = 1, trade_id = trade_id - 44'),
        began('aggTrade', covers),
        `${began('aggTrade', 'epoch = 1, trade_id = trade_id - 520')} AND trade_id >= 525`,
      ],
      leftOut: /BTCUSDT: 1 aggTrade with trades of another epoch.*\n +524 at /,
    },
  }
  for (const [name, { changes, leftOut }] of Object.entries(cases)) {
    const audit = await market.auditAfter(changes)
    assert.deepEqual(failuresOf(audit), [], name)
    assert.match(renderAudit(audit), leftOut, name)
    // The others are checked as usual.
    const changed = `UPDATE trades SET quantity = quantity * 2 WHERE ${BTC_AGGREGATES} AND trade_id = 503`
    assert.deepEqual(
      failuresOf(await market.auditAfter([...changes, changed])),
      ['aggregate quantities: quantity, BTCUSDT aggTrade, 1: 503'],
      name,
    )
  }
})

test('reports aggTrades whose trades are not stored', async () => {
  const audit = await market.auditAfter([`DELETE FROM trades WHERE ${BTC_TRADES}`])
  assert.equal(audit.verdict, 'clean')
  assert.match(renderAudit(audit), /BTCUSDT: 50 aggTrades before the first or after the last stored trade/)
})

test('finds quotes stored twice with two receipt times, and reports which are near an outage', async () => {
  const audit = await market.auditAfter([
    `INSERT INTO book_ticker SELECT ingestion_timestamp + interval '90 minutes', symbol, update_id, bid_price, bid_quantity, ask_price, ask_quantity
     FROM book_ticker WHERE symbol = 'BTCUSDT' AND update_id IN (7000, 7030)`,
    outageSql('2026-01-01 01:00:00', '2026-01-01 01:29:30'),
  ])
  assert.deepEqual(failuresOf(audit), ['quote repeats: doubled, BTCUSDT bookTicker, 2: 7000 7030'])
  const text = renderAudit(audit)
  assert.match(text, /BTCUSDT bookTicker: 2 doubled: .*, 1 of them within a minute of an outage/)
  assert.match(text, /7000 2 rows, .* near an outage \(restart\)\n +7030 2 rows, .*, no outage near/)
  assert.match(text, /NOT CLEAN/)
})

test('is fast with tens of thousands of duplicate quotes', async () => {
  const audit = await market.auditAfter([
    `INSERT INTO book_ticker SELECT timestamptz '2026-02-01' + n * interval '1 second', 'BTCUSDT', 90000 + n % 20000, 1, 1, 2, 1
     FROM generate_series(0, 39999) AS n`,
  ])
  assert.deepEqual(failuresOf(audit), [
    'quote repeats: doubled, BTCUSDT bookTicker, 20000: 90000 90001 90002 90003 90004',
  ])
})

test('does not treat a late quote as a duplicate', async () => {
  const audit = await market.auditAfter([
    "UPDATE book_ticker SET update_id = 7000 + 3 * 89 + 1 WHERE symbol = 'BTCUSDT' AND update_id = 7003",
  ])
  assert.equal(audit.verdict, 'clean')
})

test('sums outages, each moment once, and only inside the range', async () => {
  const outages = [
    outageSql('2026-01-01 01:00:00', '2026-01-01 01:00:10'),
    outageSql('2026-01-01 01:00:05', '2026-01-01 01:00:15.5', 'reconnect'),
    outageSql('2026-01-02 00:00:00', '2026-01-02 00:01:00'),
  ]
  const whole = await market.auditAfter(outages)
  assert.deepEqual(
    whole.outages.map(({ symbol, windows, seconds }) => `${symbol} ${windows} ${seconds}`),
    ['BTCUSDT 3 75.5'],
  )
  const scope = { symbols: null, fromMs: Date.parse('2026-01-02T00:00:50Z'), toMs: null }
  const cut = await market.auditAfter(outages, { scope })
  assert.deepEqual(cut.outages[0]?.seconds, 10)
})

test('finds rows out of bounds, and only counts unusual ones', async () => {
  const at = `${BTC_TRADES} AND trade_id`
  const audit = await market.auditAfter([
    `UPDATE trades SET price = 0 WHERE ${at} = 1004`,
    `UPDATE trades SET quantity = -1 WHERE ${at} = 1006`,
    `UPDATE trades SET ingestion_timestamp = '2101-01-01' WHERE ${at} = 1008`,
    `UPDATE trades SET event_time = event_time + interval '2 minutes' WHERE ${at} = 1010`,
    `UPDATE trades SET ingestion_timestamp = event_time - interval '6 seconds' WHERE ${at} = 1012`,
    `UPDATE trades SET first_trade_id = 1100 WHERE symbol = 'BTCUSDT' AND event_type = 'aggTrade' AND trade_id = 514`,
    "UPDATE book_ticker SET ask_price = 59999 WHERE symbol = 'BTCUSDT' AND update_id = 7003",
    "UPDATE book_ticker SET bid_quantity = -1 WHERE symbol = 'BTCUSDT' AND update_id = 7006",
    'UPDATE book_ticker SET bid_price = 0, bid_quantity = 0, ask_price = 0, ask_quantity = 0 WHERE update_id = 7009',
  ])
  const found = audit.findings
    .filter(({ check }) => check === 'bounds')
    .map(
      (one) => `${one.kind} ${one.severity} ${one.eventType} ${one.examples.map(({ from }) => from).join()}`,
    )
  assert.deepEqual(found.sort(), [
    'crossed notice bookTicker 7003',
    'event time notice trade 1010',
    'ids failure aggTrade 514',
    'price failure trade 1004',
    'quantity failure bookTicker 7006',
    'quantity failure trade 1006',
    'receipt notice trade 1010,1012',
    'time failure trade 1008',
  ])
  assert.match(renderAudit(audit), /this machine's clock was late compared with the exchange's/)
})

test('finds values that only a table can have', async () => {
  const at = `${BTC_TRADES} AND trade_id`
  const audit = await market.auditTablesAfter([
    `UPDATE trades SET price = 'NaN' WHERE ${at} = 1002`,
    `UPDATE trades SET first_trade_id = 1, last_trade_id = 1 WHERE ${at} = 1014`,
  ])
  const found = audit.findings.filter(({ check }) => check === 'bounds')
  assert.deepEqual(
    found.map(({ kind, examples }) => [kind, ...examples.map(({ from }) => from)]),
    [
      ['ids', 1014],
      ['price', 1002],
    ],
  )
})

test('reports a trade earlier than the previous id', async () => {
  const audit = await market.auditAfter([
    `UPDATE trades SET trade_time = trade_time + interval '3 hours' WHERE ${BTC_TRADES} AND trade_id = 1051`,
  ])
  const found = audit.findings.find(({ kind }) => kind === 'backwards')
  assert.deepEqual([found?.severity, found?.count, found?.examples[0]?.from], ['notice', 1, 1052])
})

test('finds symbols that the consumer would not have stored, and epochs without the previous one', async () => {
  const audit = await market.auditAfter([
    `UPDATE trades SET symbol = 'ethusdt' WHERE symbol = 'ETHUSDT'`,
    `UPDATE trades SET epoch = 2 WHERE ${BTC_TRADES} AND trade_id >= 1050`,
  ])
  assert.deepEqual(failuresOf(audit), ['sequences: symbol, ethusdt null, null: '])
  assert.ok(audit.findings.some(({ kind, severity }) => kind === 'epoch' && severity === 'notice'))
})
