import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { zstdDecompressSync } from 'node:zlib'
import { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } from 'hyparquet'
import type { EventType } from '../src/foundation/market/event.ts'
import { COLUMNS, isoTime } from '../src/tools/export/columns.ts'
import { parseDay } from '../src/tools/export/day.ts'
import type { Manifest } from '../src/tools/export/manifest.ts'
import { createAuditedMarket, outageSql } from './support/audited-market.ts'
import { databaseKinds } from './support/database.ts'
import { startTapeline } from './support/processes.ts'

const DAY = '2026-01-02'
const TYPES = ['trade', 'aggTrade', 'bookTicker'] as const

/** What a number of JavaScript would spoil: all twenty digits, the last one, a microsecond. */
const EXTREMES = `INSERT INTO book_ticker VALUES
  ('${DAY}T23:59:59.999999Z', 'BTCUSDT', 9007199254740991, 999999999999.99999999, 0.00000001, 999999999999.99999998, 123456789012.12345678)`

for (const { name, ...options } of databaseKinds()) {
  test(
    `an exported day holds every row of the day and no other, digit by digit, on the ${name} TimescaleDB`,
    options,
    async () => {
      const market = await createAuditedMarket(name)
      const temporary = mkdtempSync(join(tmpdir(), 'export-'))
      const folder = join(temporary, 'made', 'by itself')
      const run = (...args: string[]) =>
        startTapeline(['export', 'BTCUSDT', '--out', folder, ...args], {
          env: { DATABASE_URL: market.url, KAFKA_BROKERS: '127.0.0.1:1' },
        })
      try {
        await market.database.query(EXTREMES)
        await market.database.query(outageSql(`${DAY}T10:00:00Z`, `${DAY}T10:00:07Z`))
        await market.database.query(outageSql('2026-01-03T10:00:00Z', '2026-01-03T10:00:07Z'))
        await using first = run('--day', DAY)
        await first.assertExit(0, 60_000)
        const manifest = readManifest(folder, 'parquet')
        assert.deepEqual(
          [manifest.symbol, manifest.day, manifest.dayIsOver, manifest.verify?.verdict],
          ['BTCUSDT', DAY, true, 'clean'],
        )
        assert.deepEqual(
          manifest.gaps.map(({ from_time }) => from_time),
          [`${DAY}T10:00:00.000Z`],
        )
        for (const type of TYPES) {
          const stored = await storedRows(market.database, type)
          assert.ok(stored.length > 3, `${type}: ${stored.length} rows`)
          const file = manifest.files.find((one) => one.type === type)
          assert.ok(file !== undefined)
          const path = join(folder, file.name)
          assert.deepEqual(await parquetRows(path, type), stored)
          assert.equal(file.rows, stored.length)
          assert.equal(file.sha256, createHash('sha256').update(readFileSync(path)).digest('hex'))
        }

        // Two at once do not write into each other's files: one has them, and they are whole.
        const both = [
          run('--day', '2026-01-03', '--type', 'trade'),
          run('--day', '2026-01-03', '--type', 'trade'),
        ]
        const codes = await Promise.all(both.map(async (one) => (await one.exit(60_000)).code))
        await Promise.all(both.map((one) => one.kill()))
        assert.ok(codes.includes(0), both.map((one) => one.output()).join())
        assert.ok(
          codes.every((code) => code === 0 || code === 2),
          String(codes),
        )
        const shared: Manifest = JSON.parse(
          readFileSync(join(folder, 'BTCUSDT-trade-2026-01-03.parquet.manifest.json'), 'utf8'),
        )
        const [only] = shared.files
        assert.equal(
          only?.sha256,
          createHash('sha256')
            .update(readFileSync(join(folder, only?.name ?? '')))
            .digest('hex'),
        )

        // What is there is not replaced by accident.
        await using again = run('--day', DAY)
        await again.assertExit(2)
        assert.match(again.output(), /is there already[\s\S]*--force/)

        // A row is gone that nothing explains: the files come, the exit code tells.
        await market.database.query(
          `DELETE FROM trades WHERE symbol = 'BTCUSDT' AND event_type = 'trade' AND trade_id =
           (SELECT min(trade_id) + 3 FROM trades WHERE symbol = 'BTCUSDT' AND event_type = 'trade' AND trade_time >= '${DAY}')`,
        )
        await using csv = run('--day', DAY, '--format', 'csv', '--force')
        await csv.assertExit(1, 90_000)
        assert.equal(readManifest(folder, 'csv').verify?.verdict, 'not clean')
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
        assert.match(nothing.output(), /Nothing of BTCUSDT is stored of 2020-01-01/)
        assert.deepEqual(
          readdirSync(folder).filter((file) => file.includes('partial')),
          [],
        )
      } finally {
        await market.drop()
        rmSync(temporary, { recursive: true, force: true })
      }
    },
  )
}

test('takes a day in UTC, and no day that is none', () => {
  const nowMs = Date.UTC(2026, 2, 1, 0, 30)
  assert.equal(parseDay('today', nowMs).name, '2026-03-01')
  assert.equal(parseDay('yesterday', nowMs).name, '2026-02-28')
  assert.deepEqual(parseDay(DAY, nowMs).bounds, [`${DAY}T00:00:00.000Z`, '2026-01-03T00:00:00.000Z'])
  for (const wrong of ['2026-02-30', '2026-1-2', 'tomorrow', ''])
    assert.throws(() => parseDay(wrong, nowMs), /no such day/)
})

function readManifest(folder: string, format: string): Manifest {
  return JSON.parse(readFileSync(join(folder, `BTCUSDT-${DAY}.${format}.manifest.json`), 'utf8'))
}

/** The texts of the database, in the order of the file; null is empty. */
async function storedRows(
  database: Awaited<ReturnType<typeof createAuditedMarket>>['database'],
  type: EventType,
): Promise<string[][]> {
  const columns = COLUMNS[type].map(({ name, kind }) =>
    kind === 'time'
      ? `to_char(${name} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`
      : `${name}::text`,
  )
  const [table, where] =
    type === 'bookTicker' ? ['book_ticker', 'true'] : ['trades', `event_type = '${type}'`]
  const time = COLUMNS[type][0]?.name
  const { rows } = await database.query<{ texts: Array<string | null> }>(
    `SELECT ARRAY[${columns.join()}] AS texts FROM ${table}
     WHERE ${where} AND symbol = 'BTCUSDT' AND ${time}::date = '${DAY}' ORDER BY ${time}, ${type === 'bookTicker' ? 'update_id' : 'trade_id'}`,
  )
  return rows.map(({ texts }) => texts.map((text) => text ?? ''))
}

/** By another program's reading, which would make numbers of decimals: it is told that they are bytes. */
async function parquetRows(path: string, type: EventType): Promise<string[][]> {
  const file = await asyncBufferFromFile(path)
  const metadata = await parquetMetadataAsync(file)
  for (const element of metadata.schema) {
    if (element.converted_type === 'DECIMAL') {
      assert.deepEqual([element.precision, element.scale, element.type_length], [20, 8, 9])
      delete element.converted_type
      delete element.logical_type
    } else if (element.logical_type?.type === 'TIMESTAMP') {
      assert.deepEqual(element.logical_type, { type: 'TIMESTAMP', isAdjustedToUTC: true, unit: 'MICROS' })
      delete element.converted_type
      delete element.logical_type
    }
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
      if (kind === 'time' && typeof value === 'bigint') return isoTime(value)
      if (kind === 'decimal' && value instanceof Uint8Array) return decimalOf(value)
      return String(value)
    }),
  )
}

/** A number of two's complement, its last eight digits behind the point. */
function decimalOf(bytes: Uint8Array): string {
  const digits = BigInt.asIntN(72, BigInt(`0x${Buffer.from(bytes).toString('hex')}`))
    .toString()
    .padStart(9, '0')
  return `${digits.slice(0, -8)}.${digits.slice(-8)}`
}
