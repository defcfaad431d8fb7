import assert from 'node:assert/strict'
import { test } from 'node:test'
import { gapLine } from '../src/cli/gaps.ts'
import { planRetry, readGaps } from '../src/tools/gaps/stored-gaps.ts'
import { gapSql } from './support/audited-market.ts'
import { column } from './support/columns.ts'
import { openTestDatabase } from './support/database.ts'

test('missing updates of order books are listed, and a retry says that nothing can fetch them', async () => {
  await using server = await openTestDatabase('migrated')
  const { database } = server
  await database.query(gapSql('unrecoverable', 5, 9))
  await database.query(gapSql('unrecoverable', 50, 90, { eventType: 'depth' }))
  const all = { symbol: null, fromMs: null, toMs: null }
  assert.deepEqual(column(await readGaps(database, all), 'event_type'), ['trade', 'depth'])
  const [gap] = await readGaps(database, all)
  assert.ok(gap !== undefined)
  assert.equal(
    gapLine({ ...gap, from_time: 1_700_000_000_000, to_time: null }),
    'BTCUSDT/trade/0/5  trade 5..9  2023-11-14T22:13:20.000Z to unknown  unrecoverable',
  )
  const planned = await planRetry(database, all, 0)
  assert.deepEqual(
    planned.map(({ row, request }) => `${row.event_type} ${request?.status}`),
    ['trade open'],
  )
  const [named] = await planRetry(database, { ...all, ids: ['BTCUSDT/depth/0/50'] }, 0)
  assert.equal(named?.request, null)
  assert.match(named?.request === null ? named.reason : '', /^cannot be reopened: REST has no past changes/)
})
