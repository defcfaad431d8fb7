import { randomUUID } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createDayList, dayFolder } from '../../src/foundation/archive/day-list.ts'
import { quoted } from '../../src/foundation/archive/duckdb.ts'
import { localFiles } from '../../src/foundation/archive/local-files.ts'
import { ARCHIVE_TABLES, COLUMN_KINDS } from '../../src/foundation/archive/tables.ts'
import { ADOPTED_FOLDER } from '../../src/foundation/archive/text-relations.ts'
import { EVENT_TYPES, type EventType } from '../../src/foundation/market/event.ts'
import type { Queryable } from '../../src/foundation/store/database.ts'
import { csvLine } from '../../src/foundation/store/text-reader.ts'
import { type ArchiveParts, createArchive } from './archive-parts.ts'

/**
 * Writes the tables to an archive as they are in a transaction, with every defect: as messages most of
 * these would be dead letters.
 */
export async function archiveOf(connection: Queryable): Promise<ArchiveParts> {
  const archive = await createArchive()
  for (const type of EVENT_TYPES) await writeDays(archive, connection, type)
  await writeTexts(archive, connection, 'gaps', GAPS)
  await writeTexts(archive, connection, 'recordings', RECORDINGS)
  await writeTexts(archive, connection, 'dead_letters', DEAD_LETTERS)
  return archive
}

/** The rows of a type with the columns of the archive. */
function rowsOf(type: EventType): string {
  switch (type) {
    case 'bookTicker':
      return 'book_ticker'
    case 'depth':
      return 'depth_levels'
    case 'depthSnapshot':
      return `(SELECT levels.*, level_limit FROM depth_snapshot_levels AS levels
        JOIN depth_snapshots USING (symbol, epoch, last_update_id, kind, ingestion_timestamp) WHERE kind = 'rest') AS levels`
    default:
      return `(SELECT * FROM trades WHERE event_type = '${type}') AS trades`
  }
}

async function writeDays(all: ArchiveParts, connection: Queryable, type: EventType): Promise<void> {
  const { name: table, columns, identity } = ARCHIVE_TABLES[type]
  const texts = columns.map(({ name }) => `${name}::text`)
  const { rows } = await connection.query<{ texts: Array<string | null> }>(
    `SELECT ARRAY[${texts.join()}] AS texts FROM ${rowsOf(type)}`,
  )
  if (rows.length === 0) return
  const { folder, store, duckDb } = all
  const csv = join(store.stagingFolder, `${randomUUID()}.csv`)
  writeFileSync(csv, rows.map(({ texts }) => `${csvLine(texts)}\n`).join(''))
  const types = columns.map(({ name, kind }) => `${name}: '${COLUMN_KINDS[kind].sql}'`)
  await duckDb.run(
    `CREATE OR REPLACE TEMP TABLE planted AS FROM read_csv(${quoted(csv)}, header = false, columns = {${types.join()}})`,
  )
  const time = columns[0]?.name
  const days = await duckDb.rows<{ date: string; rows: bigint }>(
    `SELECT strftime(${time}, '%Y-%m-%d') AS date, count(*) AS rows FROM planted GROUP BY 1`,
  )
  for (const { date, rows: count } of days) {
    const symbols = await duckDb.rows<{ symbol: string }>(
      `SELECT DISTINCT symbol FROM planted WHERE strftime(${time}, '%Y-%m-%d') = '${date}'`,
    )
    const key = `${dayFolder(table, date)}/${randomUUID()}.parquet`
    const path = join(folder, key)
    mkdirSync(join(path, '..'), { recursive: true })
    await duckDb.run(
      `COPY (FROM planted WHERE strftime(${time}, '%Y-%m-%d') = '${date}' ORDER BY ${identity.join()}) TO ${quoted(path)} (FORMAT parquet)`,
    )
    const file = {
      key,
      rows: Number(count),
      ...(await localFiles.hash(path)),
      firstSymbol: '',
      lastSymbol: '\u{10ffff}',
    }
    const list = {
      table,
      date,
      number: 1,
      publishedAt: 0,
      files: [file],
      through: {},
      duplicates: 0,
      conflicts: [],
      symbols: Object.fromEntries(symbols.map(({ symbol }) => [symbol, [FIGURES]])),
      missing: [],
      verdict: 'complete' as const,
    }
    await createDayList(store, list)
  }
}

/** Nothing reads these figures but the manifest. */
const FIGURES = { epoch: 0, rows: 0, firstId: 0, lastId: 0, missingIds: null }

const ms = (time: string) => `(extract(epoch FROM ${time}) * 1000)::bigint`

const GAPS = `SELECT json_build_object('gap_id', gap_id, 'revision', revision, 'symbol', symbol, 'event_type', event_type, 'epoch', epoch,
    'from_id', from_id, 'to_id', to_id, 'from_time', ${ms('from_time')}, 'to_time', ${ms('to_time')}, 'cause', cause, 'status', status,
    'reason', reason, 'detected_at', ${ms('detected_at')}, 'updated_at', ${ms('updated_at')}, 'closed_at', ${ms('closed_at')})::text AS json
  FROM gaps`

const RECORDINGS = `SELECT value AS json FROM meta WHERE starts_with(key, 'recording:')`

/** The archive does not know which of them were retried. */
const DEAD_LETTERS = `SELECT json_build_object('topic', topic, 'topicId', topic_id, 'partition', partition, 'offset', kafka_offset,
    'origin', origin, 'reason', reason, 'key', encode(key, 'base64'), 'payload', translate(encode(payload, 'base64'), E'\\n', ''),
    'headers', headers, 'failedAtMs', ${ms('failed_at')})::text AS json
  FROM dead_letters WHERE resolved_at IS NULL`

async function writeTexts(
  all: ArchiveParts,
  connection: Queryable,
  table: string,
  sql: string,
): Promise<void> {
  const { rows } = await connection.query<{ json: string }>(sql)
  if (rows.length === 0) return
  const { folder, store, duckDb } = all
  const csv = join(store.stagingFolder, `${randomUUID()}.csv`)
  writeFileSync(csv, rows.map(({ json }) => `${csvLine([json])}\n`).join(''))
  const path = join(folder, ADOPTED_FOLDER, table, `${randomUUID()}.parquet`)
  mkdirSync(join(path, '..'), { recursive: true })
  await duckDb.run(
    `COPY (SELECT TIMESTAMPTZ 'epoch' AS time, json, row_number() OVER () AS _offset
       FROM read_csv(${quoted(csv)}, header = false, columns = {json: 'VARCHAR'})) TO ${quoted(path)} (FORMAT parquet)`,
  )
}
