import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createAuditedMarket } from './support/audited-market.ts'
import { startTapeline } from './support/processes.ts'

test('sql prints every digit, changes nothing, and reports an error in one line', async () => {
  await using market = await createAuditedMarket()
  const sql = async (exitCode: number, ...args: string[]) => {
    await using running = startTapeline(['sql', ...args], { env: { DATABASE_URL: market.url } })
    await running.assertExit(exitCode, 30_000)
    return running.output()
  }
  const before = (await market.database.query('SELECT count(*) FROM trades')).rows
  assert.equal(
    await sql(
      0,
      "SELECT 'BTCUSDT' AS symbol, 0.10000000::numeric(20,8) AS price, NULL AS nothing, timestamptz '2026-01-31 12:00:00.000001+02' AS at",
    ),
    [
      'symbol  |      price | nothing | at',
      '--------+------------+---------+------------------------------',
      'BTCUSDT | 0.10000000 |         | 2026-01-31 10:00:00.000001+00',
      '(1 row)\n',
    ].join('\n'),
  )
  assert.equal(
    await sql(
      0,
      '--json',
      'SELECT 1 AS a, 12345678901234567890::numeric AS b, true AS c, NULL AS d, 9007199254740993::bigint AS e',
    ),
    '{"a":1,"b":"12345678901234567890","c":true,"d":null,"e":"9007199254740993"}\n',
  )
  assert.equal(await sql(0, '--csv', `SELECT 'x,"y"' AS a, NULL AS b, '' AS c`), 'a,b,c\n"x,""y""",,""\n')
  assert.equal(
    (await sql(0, '--csv', 'SELECT n FROM generate_series(1, 2500) AS n')).split('\n').length,
    2502,
  )
  for (const [query, ...how] of [
    ["SELECT count(*), max(price) FROM raw_trades WHERE symbol IN ('BtcUsdt', 'none')"],
    ["SELECT * FROM raw_trades WHERE symbol = 'btcusdt'", '--json'],
    ["SELECT count(*) FROM book_ticker WHERE symbol = 'ethusdt'", '--csv'],
  ] as const)
    assert.match(
      await sql(0, ...how, query),
      /Symbols are stored in upper case: '(BTCUSDT', not 'btcusdt'|BTCUSDT', not 'BtcUsdt'|ETHUSDT', not 'ethusdt')\./,
    )
  assert.doesNotMatch(await sql(0, "SELECT * FROM raw_trades WHERE symbol = 'none'"), /upper case/)
  assert.match(
    await sql(0, '--limit', '2', 'SELECT n FROM generate_series(1, 5) AS n'),
    /\(2 rows\)[\s\S]*use --limit for more/,
  )
  for (const [query, said] of [
    ['DELETE FROM trades', /cannot execute DELETE in a read-only transaction \(SQLSTATE 25006\)/],
    ['SELECT 1; DROP TABLE trades', /\(SQLSTATE 42601\)/],
    ['COMMIT', /./],
    ['WITH gone AS (DELETE FROM trades RETURNING 1) SELECT * FROM gone', /SQLSTATE/],
    ['SELECT * FROM no_such_table', /relation "no_such_table" does not exist \(SQLSTATE 42P01\)/],
    ...(market.kind === 'native' ? [['SELECT pg_sleep(5)', /SQLSTATE 57014/] as const] : []),
  ] as const) {
    const output = await sql(query === 'COMMIT' ? 0 : 1, '--timeout', '500ms', query)
    assert.match(output, said)
    assert.doesNotMatch(output, / {4}at /)
  }
  assert.deepEqual((await market.database.query('SELECT count(*) FROM trades')).rows, before)
})
