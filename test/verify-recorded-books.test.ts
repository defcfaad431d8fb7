import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createAuditedMarket, failuresOf } from './support/audited-market.ts'
import { anchorSql, diffsSql, quotesSql } from './support/depth-sql.ts'
import { NO_RECORDED_DEPTH, recordedDepth } from './support/recorded-depth.ts'

const ROWS_AT_ONCE = 500

function batches<Row>(rows: readonly Row[], sql: (some: readonly Row[]) => string): string[] {
  return Array.from({ length: Math.ceil(rows.length / ROWS_AT_ONCE) }, (_, i) =>
    sql(rows.slice(i * ROWS_AT_ONCE, (i + 1) * ROWS_AT_ONCE)),
  )
}

test('the recorded frames are clean in both stores, and a removed quote of the detectable class is found', {
  skip: NO_RECORDED_DEPTH,
}, async () => {
  const { diffs, quotes, quotedUs, anchor } = recordedDepth()
  const timed = quotes.map((quote, i) => [quote, quotedUs[i] ?? 0] as const)
  await using market = await createAuditedMarket(undefined, [
    ...batches(diffs, (some) => diffsSql(some)),
    anchorSql(anchor),
    ...batches(timed, quotesSql),
  ])
  const clean = await market.auditAfter([])
  assert.deepEqual(failuresOf(clean), [])
  assert.deepEqual(
    clean.findings.filter(({ check }) => check === 'order book'),
    [],
  )
  const [book = assert.fail('there is no book')] = clean.books
  assert.equal(book.changes, 3451)
  assert.ok(book.comparedTops >= 3440, String(book.comparedTops))
  assert.equal(((100 * book.detectableQuotes) / book.quotes).toFixed(1), '10.3')
  const diff = diffs[1000] ?? assert.fail()
  const index = quotes.findLastIndex(({ updateId }) => updateId <= diff.lastUpdateId)
  const [before, last] = [quotes[index - 1], quotes[index]]
  assert.notDeepEqual({ ...before, updateId: 0 }, { ...last, updateId: 0 }, 'it is of the detectable class')
  const found = await market.auditAfter([`DELETE FROM book_ticker WHERE update_id = ${last?.updateId}`])
  assert.deepEqual(failuresOf(found), [`order book: top, BTCUSDT depth, 1: ${diff.lastUpdateId}`])
  const dropped = await market.auditTablesAfter([
    `DELETE FROM depth_updates WHERE last_update_id = ${diff.lastUpdateId}`,
  ])
  const { firstUpdateId, lastUpdateId } = diff
  assert.deepEqual(failuresOf(dropped), [
    `continuity: missing, BTCUSDT depth, ${lastUpdateId - firstUpdateId + 1}: ${firstUpdateId}..${lastUpdateId}`,
  ])
})
