import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { zstdDecompressSync } from 'node:zlib'
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from 'hyparquet'
import { openDuckDb } from '../src/foundation/archive/duckdb.ts'
import type { EventType } from '../src/foundation/market/event.ts'
import { isoOfUs } from '../src/foundation/market/time-unit.ts'
import { TextReader } from '../src/foundation/store/text-reader.ts'
import { COLUMNS } from '../src/tools/export/columns.ts'
import { parseDay, parseDays } from '../src/tools/export/day.ts'
import type { DayStore } from '../src/tools/export/day-store.ts'
import { exportDay } from '../src/tools/export/export-day.ts'
import type { Manifest } from '../src/tools/export/manifest.ts'
import { tableStore } from '../src/tools/export/table-store.ts'
import { audit } from '../src/tools/verify/verify.ts'
import { createArchive, MIDNIGHT_MS } from './support/archive-parts.ts'
import { archiveOf } from './support/archived-tables.ts'
import { AUDIT_OPTIONS, createAuditedMarket, gapSql, outageSql } from './support/audited-market.ts'
import { column } from './support/columns.ts'
import { databaseKinds } from './support/database.ts'
import { startTapeline } from './support/processes.ts'
import { record, tradeValue } from './support/records.ts'

const DAY = '2026-01-02'
const TYPES = ['trade', 'aggTrade', 'bookTicker'] as const

/** Values that a JavaScript number would change: all twenty digits, the last one, a microsecond. */
const EXTREMES = `INSERT INTO book_ticker VALUES
  ('${DAY}T23:59:59.999999Z', 'BTCUSDT', 9007199254740991, 999999999999.99999999, 0.00000001, 999999999999.99999998, 123456789012.12345678)`

test('an exported day contains every row of the day and no other, with exact digits', async () => {
  await using market = await createAuditedMarket()
  const folder = join(mkdtempSync(join(tmpdir(), 'export-')), 'made', 'on demand')
  const run = (...args: string[]) =>
    startTapeline(['export', 'BTCUSDT', '--out', folder, ...args], {
      env: { DATABASE_URL: market.url, KAFKA_BROKERS: '127.0.0.1:1' },
    })
  await market.database.query(EXTREMES)
  await market.database.query(outageSql(`${DAY}T10:00:00Z`, `${DAY}T10:00:07Z`))
  await market.database.query(outageSql('2026-01-03T10:00:00Z', '2026-01-03T10:00:07Z'))
  await using first = run('--day', DAY)
  await first.assertExit(0)
  const manifest = readManifest(folder, `BTCUSDT-${DAY}.parquet`)
  const { symbol, day, dayIsOver, verify } = manifest
  assert.deepEqual([symbol, day, dayIsOver, verify?.verdict], ['BTCUSDT', DAY, true, 'clean'])
  assert.deepEqual(column(manifest.gaps, 'from_time'), [`${DAY}T10:00:00.000Z`])
  // Nobody recorded block trades.
  assert.deepEqual(column(manifest.files, 'type').toSorted(), [...TYPES].sort())
  assert.doesNotMatch(readdirSync(folder).join(), /blockTrade/)
  for (const type of TYPES) {
    const stored = await storedRows(market.database, type)
    assert.ok(stored.length > 3, `${type}: ${stored.length} rows`)
    const file = manifest.files.find((one) => one.type === type)
    assert.ok(file !== undefined)
    const path = join(folder, file.name)
    assert.deepEqual(await parquetRows(path, type), stored)
    assert.equal(file.rows, stored.length)
    assert.equal(file.sha256, sha256(path))
  }

  // Two concurrent exports do not mix their files: one of them writes complete files.
  const both = [run('--day', '2026-01-03', '--type', 'trade'), run('--day', '2026-01-03', '--type', 'trade')]
  const codes = await Promise.all(both.map(async (one) => (await one.exit()).code))
  await Promise.all(both.map((one) => one.kill()))
  assert.ok(codes.includes(0), both.map((one) => one.output()).join())
  assert.deepEqual(new Set(codes).difference(new Set([0, 2])), new Set(), String(codes))
  const [only] = readManifest(folder, 'BTCUSDT-trade-2026-01-03.parquet').files
  assert.equal(only?.sha256, sha256(join(folder, only?.name ?? '')))

  // Existing files are not overwritten by accident.
  await using again = run('--day', DAY)
  await again.assertExit(2)
  assert.match(again.output(), /exists already[\s\S]*--force/)

  // With an unexplained missing row the files are written, and the exit code shows it.
  await market.database.query(
    `DELETE FROM trades WHERE symbol = 'BTCUSDT' AND event_type = 'trade' AND trade_id =
     (SELECT min(trade_id) + 3 FROM trades WHERE symbol = 'BTCUSDT' AND event_type = 'trade' AND trade_time >= '${DAY}')`,
  )
  await using csv = run('--day', DAY, '--format', 'csv', '--force')
  await csv.assertExit(1, 90_000)
  assert.equal(readManifest(folder, `BTCUSDT-${DAY}.csv`).verify?.verdict, 'not clean')
  for (const type of TYPES) {
    const [head, ...lines] = readFileSync(join(folder, `BTCUSDT-${type}-${DAY}.csv`), 'utf8')
      .trimEnd()
      .split('\n')
    assert.equal(head, COLUMNS[type].map((column) => column.name).join())
    assert.deepEqual(
      lines.map((line) => line.split(',')),
      await storedRows(market.database, type),
    )
  }

  await using nothing = run('--day', '2020-01-01')
  await nothing.assertExit(2)
  assert.match(nothing.output(), /Nothing of BTCUSDT is stored for 2020-01-01/)
  assert.ok(!readdirSync(folder).join().includes('partial'))
})

test('an export from the archive has the same files and manifest as one from the tables', async () => {
  await using market = await createAuditedMarket()
  await market.database.query(EXTREMES)
  for (const sql of [
    "INSERT INTO meta (key, value) VALUES ('source', 'simulated'), ('time_unit', 'millisecond')",
    outageSql(`${DAY}T10:00:00Z`, `${DAY}T10:00:07Z`),
    gapSql('unrecoverable', 1030, 1031),
    gapSql('unrecoverable', 1047, 1048),
    gapSql('unrecoverable', 1072, 1080),
    "DELETE FROM trades WHERE symbol = 'BTCUSDT' AND event_type = 'trade' AND trade_id IN (1030, 1031, 1035, 1047)",
  ])
    await market.database.query(sql)
  await using archive = await archiveOf(market.database)
  const folder = mkdtempSync(join(tmpdir(), 'export-'))
  const env = { DATABASE_URL: market.url, ARCHIVE_URL: archive.folder, KAFKA_BROKERS: '127.0.0.1:1' }
  for (const format of ['parquet', 'csv']) {
    const run = (out: string, ...args: string[]) =>
      startTapeline(
        [
          'export',
          'BTCUSDT',
          '--from',
          DAY,
          '--to',
          '2026-01-03',
          '--format',
          format,
          '--out',
          join(folder, out),
          ...args,
        ],
        { env },
      )
    await using ofTables = run('tables')
    await using ofArchive = run('archive', '--archive')
    await ofTables.assertExit(1, 90_000)
    await ofArchive.assertExit(1, 90_000)
    for (const day of [DAY, '2026-01-03']) {
      const [tables, archived] = ['tables', 'archive'].map((out) =>
        readManifest(join(folder, out), `BTCUSDT-${day}.${format}`),
      )
      assert.ok(tables !== undefined && archived !== undefined)
      assert.deepEqual(comparable(archived), comparable(tables))
      for (const { name, type } of tables.files) {
        const [one, other] = ['tables', 'archive'].map((out) => join(folder, out, name))
        if (format === 'csv') assert.deepEqual(readFileSync(other ?? ''), readFileSync(one ?? ''))
        else assert.deepEqual(await parquetRows(other ?? '', type), await parquetRows(one ?? '', type))
      }
    }
  }
})

test('a day is over in the archive when it is published: before that its last rows may be missing', async () => {
  await using archive = await createArchive()
  const trade = (id: number) => record(tradeValue({ t: id, T: MIDNIGHT_MS + id, E: MIDNIGHT_MS + id }))
  const folder = mkdtempSync(join(tmpdir(), 'export-'))
  const env = { ARCHIVE_URL: archive.folder, KAFKA_BROKERS: '127.0.0.1:1' }
  const exported = async () => {
    const args = ['export', 'BTCUSDT', '--day', '2024-08-09', '--type', 'trade', '--archive', '--force']
    await using running = startTapeline([...args, '--no-verify', '--out', folder], { env })
    await running.assertExit(0, 60_000)
    const { dayIsOver, files } = readManifest(folder, 'BTCUSDT-trade-2024-08-09.parquet')
    return { dayIsOver, rows: files[0]?.rows, isSaid: /has not published the day yet/.test(running.output()) }
  }
  await archive.add('trades', [trade(1)])
  assert.deepEqual(await exported(), { dayIsOver: false, rows: 1, isSaid: true })
  await archive.add('trades', [trade(2)])
  await archive.publish()
  await archive.add('trades', [trade(3)])
  assert.deepEqual(await exported(), { dayIsOver: true, rows: 3, isSaid: false })
})

/** A manifest without what depends on the moment, and on how rows are divided in a Parquet file. */
function comparable({ takenAt: _, files, verify, ...rest }: Manifest) {
  const { takenAt: __, watermark: ___, ...audit } = verify ?? assert.fail('not audited')
  return { ...rest, audit, files: files.map(({ bytes: _bytes, sha256: _sha256, ...file }) => file) }
}

test('accepts a day in UTC, and refuses an invalid one', () => {
  const nowMs = Date.UTC(2026, 2, 1, 0, 30)
  assert.equal(parseDay('--day', 'today', nowMs).name, '2026-03-01')
  assert.equal(parseDay('--day', 'yesterday', nowMs).name, '2026-02-28')
  assert.deepEqual(parseDay('--day', DAY, nowMs).bounds, [`${DAY}T00:00:00.000Z`, '2026-01-03T00:00:00.000Z'])
  for (const wrong of ['2026-02-30', '2026-1-2', 'tomorrow', ''])
    assert.throws(() => parseDay('--day', wrong, nowMs), /--day .*: no such day/)
  const names = (from: string, to: string) => parseDays(from, to, nowMs).map(({ name }) => name)
  assert.deepEqual(names('2026-02-27', 'today'), ['2026-02-27', '2026-02-28', '2026-03-01'])
  assert.deepEqual(names(DAY, DAY), [DAY])
  assert.throws(() => names('today', 'yesterday'), /--from today --to yesterday: no day/)
  assert.throws(() => names('2000-01-01', 'today'), /too many days/)
})

test('exports several days of several symbols in one call, each with its ledger rows', async () => {
  await using market = await createAuditedMarket()
  const folder = mkdtempSync(join(tmpdir(), 'export-'))
  const run = (...args: string[]) =>
    startTapeline(['export', '--out', folder, '--type', 'trade', ...args], {
      env: { DATABASE_URL: market.url, KAFKA_BROKERS: '127.0.0.1:1' },
    })
  const manifestOf = (symbol: string, day: string) =>
    readManifest(folder, `${symbol}-trade-2026-01-${day}.parquet`)
  // A gap without times, detected days later: ids 1024 to 1047 belong to the second day.
  for (const [from, to] of [
    [1030, 1031],
    [1047, 1048],
    [1072, 1080],
  ] as const)
    await market.database.query(gapSql('unrecoverable', from, to))
  await market.database.query(
    `DELETE FROM trades WHERE symbol = 'BTCUSDT' AND event_type = 'trade' AND trade_id IN (1047, 1048)`,
  )
  await using all = run('ethusdt,BTCUSDT', 'BTCUSDT', '--from', '2025-12-31', '--to', '2026-01-03')
  await all.assertExit(0, 90_000)
  assert.match(all.output(), /Nothing of ETHUSDT is stored for 2025-12-31/)
  const idsOf = (symbol: string, day: string) => {
    const { first, last, rows } = manifestOf(symbol, day).files[0] ?? assert.fail('no file')
    return [first?.id, last?.id, rows]
  }
  assert.deepEqual(idsOf('ETHUSDT', '01'), [1000, 1023, 24])
  assert.deepEqual(idsOf('ETHUSDT', '02'), [1024, 1047, 24])
  assert.deepEqual(idsOf('ETHUSDT', '03'), [1048, 1071, 24])
  assert.deepEqual(idsOf('BTCUSDT', '02'), [1024, 1046, 23])
  const gapsOf = (day: string) => manifestOf('BTCUSDT', day).gaps.map(({ from_id }) => from_id)
  assert.deepEqual(['01', '02', '03'].map(gapsOf), [[], [1030, 1047], [1047]])
  assert.deepEqual(manifestOf('ETHUSDT', '02').gaps, [])
  // Existing files are refused before anything is written.
  await using again = run('ETHUSDT', '--from', '2026-01-03', '--to', '2026-01-04')
  await again.assertExit(2)
  assert.ok(!readdirSync(folder).join().includes('01-04'))
  await using unsaid = run('ETHUSDT')
  await unsaid.assertExit(2)
  assert.match(unsaid.output(), /Either --day or --from/)
})

test('the manifest describes the rows in the files, whatever is stored meanwhile', {
  skip: databaseKinds().find(({ name }) => name === 'native')?.skip ?? false,
}, async (context) => {
  await using market = await createAuditedMarket('native')
  const folder = mkdtempSync(join(tmpdir(), 'export-'))
  const engine = await openDuckDb({ memoryBytes: 256 << 20, tempFolder: join(folder, 'temp'), threads: 1 })
  const duckDb = await engine.connect()
  context.after(() => engine.close())
  const read = async <Result>(work: (store: DayStore) => Promise<Result>) => {
    const reader = await TextReader.open({ url: market.url, timeoutMs: 60_000, applicationName: 'test' })
    try {
      return await work(tableStore(reader, duckDb))
    } finally {
      await reader.close()
    }
  }
  const day = parseDay('--day', DAY, Date.now())
  const scope = { symbols: ['BTCUSDT'], fromMs: day.fromMs, toMs: day.toMs }
  const remove = `DELETE FROM trades WHERE symbol = 'BTCUSDT' AND event_type = 'trade' AND trade_id = 1030`
  const looks: number[] = []
  await market.database.query(
    `CREATE TABLE kept AS SELECT * FROM trades WHERE symbol = 'BTCUSDT' AND event_type = 'trade' AND trade_id = 1030`,
  )
  await market.database.query(remove)
  const exportOnce = (wantsLater: () => boolean) =>
    exportDay(read, {
      ...{ symbol: 'BTCUSDT', day, types: ['trade'], format: 'parquet', folder, force: true },
      audit: {
        async of({ connection }) {
          const found = await audit(connection, { ...AUDIT_OPTIONS, scope })
          // Backfill stores it now.
          await market.database.query('INSERT INTO trades SELECT * FROM kept ON CONFLICT DO NOTHING')
          looks.push(found.sequences.reduce((sum, { missing }) => sum + missing, 0))
          return wantsLater() ? null : found
        },
        wait: async () => {},
      },
      onProgress: () => {},
    })
  const before = (await exportOnce(() => false))?.manifest
  assert.deepEqual([before?.files[0]?.rows, before?.verify?.verdict], [23, 'not clean'])
  assert.equal(before?.takenAt, before?.verify?.takenAt)
  // Export waits for a row that may be in flight, and includes it.
  await market.database.query(remove)
  const after = (await exportOnce(() => looks.length === 2))?.manifest
  assert.deepEqual([after?.files[0]?.rows, after?.verify?.verdict], [24, 'clean'])
  assert.deepEqual(looks, [1, 1, 0])
})

function readManifest(folder: string, name: string): Manifest {
  return JSON.parse(readFileSync(join(folder, `${name}.manifest.json`), 'utf8'))
}

function sha256(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex')
}

/** The database's values as text, in the order of the file; null is empty. */
async function storedRows(
  database: Awaited<ReturnType<typeof createAuditedMarket>>['database'],
  type: EventType,
): Promise<string[][]> {
  const columns = COLUMNS[type].map(({ name, kind }) =>
    kind === 'time'
      ? `to_char(${name} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`
      : `${name}::text`,
  )
  const [table, where, id] =
    type === 'bookTicker'
      ? ['book_ticker', 'true', 'update_id']
      : ['trades', `event_type = '${type}'`, 'trade_id']
  const time = COLUMNS[type][0]?.name
  const { rows } = await database.query<{ texts: Array<string | null> }>(
    `SELECT ARRAY[${columns.join()}] AS texts FROM ${table}
     WHERE ${where} AND symbol = 'BTCUSDT' AND ${time}::date = '${DAY}' ORDER BY ${time}, ${id}`,
  )
  return rows.map(({ texts }) => texts.map((text) => text ?? ''))
}

/** Reads with another library, set to return bytes: it would convert decimals to numbers. */
async function parquetRows(path: string, type: EventType): Promise<string[][]> {
  const file = await asyncBufferFromFile(path)
  const metadata = await parquetMetadataAsync(file)
  for (const element of metadata.schema) {
    const isDecimal = element.converted_type === 'DECIMAL'
    if (isDecimal) assert.deepEqual([element.precision, element.scale, element.type_length], [20, 8, 16])
    else if (element.logical_type?.type === 'TIMESTAMP')
      assert.deepEqual(element.logical_type, { type: 'TIMESTAMP', isAdjustedToUTC: true, unit: 'MICROS' })
    else continue
    delete element.converted_type
    delete element.logical_type
  }
  const rows = await parquetReadObjects({
    file,
    metadata,
    compressors: { ZSTD: (input) => zstdDecompressSync(input) },
  })
  return rows.map((row) =>
    COLUMNS[type].map(({ name, kind }) => {
      const value: unknown = row[name]
      if (value == null) return ''
      if (kind === 'time' && typeof value === 'bigint') return isoOfUs(Number(value))
      if (kind === 'decimal' && value instanceof Uint8Array) return decimalOf(value)
      return String(value)
    }),
  )
}

/** Converts a two's-complement number; its last eight digits are decimals. */
function decimalOf(bytes: Uint8Array): string {
  const digits = BigInt.asIntN(128, BigInt(`0x${Buffer.from(bytes).toString('hex')}`))
    .toString()
    .padStart(9, '0')
  return `${digits.slice(0, -8)}.${digits.slice(-8)}`
}
