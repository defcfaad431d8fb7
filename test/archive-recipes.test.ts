import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import type { ArchiveReader } from '../src/foundation/archive/archive-reader.ts'
import { ALL_ROWS } from '../src/foundation/archive/archive-snapshot.ts'
import { TextReader, type TextRow } from '../src/foundation/store/text-reader.ts'
import { queryArchive } from '../src/tools/archive/query.ts'
import { createArchive } from './support/archive-parts.ts'
import { createAuditedMarket, outageSql } from './support/audited-market.ts'
import { startTapeline } from './support/processes.ts'

const PAGE = join(resolve(import.meta.dirname, '..'), 'docs', 'recipes.md')
/** The last digits of floating-point numbers depend on the order of a sum. */
const RELATIVE = 1e-9

/** The queries of the page: for the database, and for the archive if that has another form. */
function recipes(): Array<{ heading: string; sql: string; archived: string }> {
  const all: Array<{ heading: string; sql: string; archived: string }> = []
  let heading = ''
  for (const [, title, isArchived, sql = ''] of readFileSync(PAGE, 'utf8').matchAll(
    /^#+ (.+)$|^```sql( archive)?\n([\s\S]*?)^```/gm,
  )) {
    heading = title ?? heading
    const last = all.at(-1)
    if (title !== undefined) continue
    if (isArchived === undefined) all.push({ heading, sql, archived: sql })
    else if (last !== undefined) last.archived = sql
  }
  return all
}

async function archivedRows(reader: ArchiveReader, sql: string): Promise<TextRow[]> {
  return queryArchive(reader, { sql, range: ALL_ROWS, timeoutMs: 60_000 }, async (portions) => {
    const rows: TextRow[] = []
    for await (const some of portions) rows.push(...some.rows)
    return rows
  })
}

function isEqual(one: string | null, other: string | null): boolean {
  if (one === other) return true
  if (one === null || other === null) return false
  const [numbers, others] = [one, other].map((text) =>
    text
      .replaceAll(/[{}[\] ]/g, '')
      .split(',')
      .map(Number),
  )
  return (
    numbers !== undefined &&
    numbers.length === others?.length &&
    numbers.every((number, i) => Math.abs(number - (others[i] ?? Number.NaN)) <= RELATIVE * Math.abs(number))
  )
}

test('adopt writes the days of the tables, once, and each recipe has the same result on both stores', async () => {
  await using market = await createAuditedMarket()
  await using archive = await createArchive()
  await market.database.query(outageSql('2026-01-02T10:00:00Z', '2026-01-02T10:00:07Z'))
  // A trade at a worse price than the best quote, backfilled, with all digits.
  await market.database.query(
    `UPDATE trades SET price = 61234.12345678, source = 'stream' WHERE trade_id = 1003 AND event_type = 'trade'`,
  )
  const adopt = async (day: string) => {
    await using adopting = startTapeline(['archive', 'adopt', '--day', day], {
      env: { DATABASE_URL: market.url, ARCHIVE_URL: archive.folder },
    })
    await adopting.assertExit(0, 60_000)
    return adopting.output()
  }
  const days = ['2026-01-01', '2026-01-02', '2026-01-03', '2026-01-04', '2026-01-05']
  const said: string[] = []
  for (const day of days) said.push(await adopt(day))
  assert.match(
    said[0] ?? '',
    /gaps: 1 rows added\nraw_trades 2026-01-01: 48 rows in the database, 48 added \(list 1\)/,
  )
  assert.match(said[1] ?? '', /gaps: 0 rows added/)
  assert.match(await adopt('2026-01-01'), /48 rows in the database, the archive has all of them/)
  await market.database.query(
    `INSERT INTO trades SELECT trade_time + interval '1 second', event_time, symbol, event_type, epoch, trade_id + 5000, price, quantity, NULL, NULL,
       is_buyer_maker, ingestion_timestamp, 'backfill' FROM trades WHERE trade_id = 1002 AND symbol = 'BTCUSDT' AND event_type = 'trade'`,
  )
  assert.match(
    await adopt('2026-01-01'),
    /raw_trades 2026-01-01: 49 rows in the database, 1 added \(list 2\)/,
  )

  const reader = await archive.openReader()
  const stored = await TextReader.open({ url: market.url, timeoutMs: 60_000, applicationName: 'test' })
  try {
    const all = recipes()
    assert.ok(all.length >= 12, `${all.length} recipes`)
    let rowsCompared = 0
    for (const { heading, sql, archived } of all) {
      const { rows: expected } = await stored.query(sql.trim().replace(/;$/, ''))
      const rows = await archivedRows(reader, archived)
      assert.equal(rows.length, expected.length, `${heading}: ${archived}`)
      for (const [i, row] of expected.entries())
        for (const [column, value] of row.entries())
          assert.ok(
            isEqual(value, rows[i]?.[column] ?? null),
            `${heading}, row ${i}, column ${column}: ${value} and ${rows[i]?.[column]}\n${archived}`,
          )
      rowsCompared += rows.length
    }
    assert.ok(rowsCompared > 50, `${rowsCompared} rows`)
    for (const view of [
      'raw_trades',
      'agg_trades',
      'block_trades',
      'book_ticker',
      'trades',
      'gaps',
      'spreads',
    ]) {
      const { rows, columns } = await stored.query(`SELECT * FROM ${view} LIMIT 1000`)
      const names = columns.map(({ name }) => name).join()
      const archived = await archivedRows(reader, `SELECT ${names} FROM ${view}`)
      // Its basis points are floating-point numbers.
      if (view !== 'spreads') assert.deepEqual(sorted(archived), sorted(rows), view)
      assert.deepEqual(
        await archivedRows(reader, `SELECT column_name FROM (DESCRIBE ${view})`),
        names.split(',').map((name) => [name]),
        view,
      )
    }
  } finally {
    await stored.close()
  }
})

function sorted(rows: readonly TextRow[]): string[] {
  return rows
    .map((row) => row.map((value) => value?.replace(/(\.\d*?)0+$/, '$1').replace(/\.$/, '')).join(' '))
    .sort()
}
