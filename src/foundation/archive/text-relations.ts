import type { ChainPoint, ChainRecord, CommitChain } from './commit-chain.ts'
import type { FileContent, ObjectStore } from './object-store.ts'
import { OFFSET_COLUMN, TEXT_TABLES } from './tables.ts'

/*
 * The tables of JSON texts as relations with the columns of the database's tables. Each takes a query
 * of rows with `time`, `json` and `_offset`.
 */

export type TextTable = keyof typeof TEXT_TABLES

/** Rows of the tables of before the archive, in a folder for each table. */
export const ADOPTED_FOLDER = '_adopted'

/** A chain as of one moment. */
export interface ChainRecords {
  readonly chain: CommitChain
  readonly foldedTo: ChainPoint
  /** Those that are not folded. */
  readonly records: readonly ChainRecord[]
}

/**
 * Returns the files of a table that the records of the chains name, and the adopted ones, of which no
 * content is known.
 *
 * @throws TapelineError `ARCHIVE` if a record is missing or damaged
 */
export async function textFiles(
  store: ObjectStore,
  chains: readonly ChainRecords[],
  table: TextTable,
): Promise<Array<Partial<FileContent> & { readonly key: string }>> {
  const { name } = TEXT_TABLES[table]
  const files = chains.map(async ({ chain, foldedTo, records }) => [
    ...(await chain.foldedFiles(foldedTo, name)),
    ...records.flatMap(({ files }) => files.filter((file) => file.table === name)),
  ])
  const adopted = (await store.list(`${ADOPTED_FOLDER}/${name}`)).map((key) => ({ key }))
  return [...(await Promise.all(files)).flat(), ...adopted]
}

/**
 * Returns a query of the ledger (the last revision of each gap), of the announcements of what is
 * recorded, or of the dead letters, with the columns of the database's tables.
 *
 * @param files reads the files of the table; null without one
 */
export function textRelation(table: TextTable, files: string | null): string {
  return TEXT_RELATIONS[table](
    files === null
      ? "SELECT NULL::TIMESTAMPTZ AS time, '{}' AS json, 0::BIGINT AS _offset WHERE false"
      : `SELECT time, json, ${OFFSET_COLUMN.name} FROM ${files}`,
  )
}

const TEXT_RELATIONS: Readonly<Record<TextTable, (rows: string) => string>> = {
  gaps: (rows) =>
    `SELECT ${[
      text('gap_id'),
      whole('revision', 'INTEGER'),
      text('symbol'),
      text('event_type'),
      whole('epoch', 'INTEGER'),
      whole('from_id'),
      whole('to_id'),
      time('from_time'),
      time('to_time'),
      text('cause'),
      text('status'),
      text('reason'),
      time('detected_at'),
      time('updated_at'),
      time('closed_at'),
    ].join()} FROM (${rows}) QUALIFY row_number() OVER (PARTITION BY gap_id ORDER BY revision DESC, time, _offset) = 1`,

  recordings: (rows) =>
    `SELECT ${[
      text('instance'),
      time('at'),
      text('source'),
      text('time_unit'),
      text('shard'),
      texts('event_types'),
      texts('symbols'),
      'json',
    ].join()} FROM (${rows}) QUALIFY row_number() OVER (PARTITION BY instance, "at" ORDER BY _offset) = 1`,

  // Whether a letter was retried with success is known to the database only.
  deadLetters: (rows) =>
    `SELECT ${[
      text('topic'),
      text('topicId', 'topic_id'),
      whole('partition', 'INTEGER'),
      whole('offset', 'BIGINT', 'kafka_offset'),
      text('origin'),
      text('reason'),
      bytes('key'),
      bytes('payload'),
      "json->'$.headers' AS headers",
      time('failedAtMs', 'failed_at'),
    ].join()} FROM (${rows})
    QUALIFY row_number() OVER (PARTITION BY topic, topic_id, partition, kafka_offset, key, payload ORDER BY time, _offset) = 1`,
}

function text(field: string, name = field): string {
  return `json->>'$.${field}' AS ${name}`
}

function texts(field: string): string {
  return `(json->'$.${field}')::VARCHAR[] AS ${field}`
}

function whole(field: string, type = 'BIGINT', name = field): string {
  return `(json->>'$.${field}')::${type} AS ${name}`
}

/** A time in milliseconds since the Unix epoch. */
function time(field: string, name = field): string {
  return `epoch_ms((json->>'$.${field}')::BIGINT) AT TIME ZONE 'UTC' AS ${name}`
}

/** Bytes in base64. */
function bytes(field: string): string {
  return `from_base64(json->>'$.${field}') AS ${field}`
}
