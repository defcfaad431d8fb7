import type { TEXT_TABLES } from './tables.ts'

/*
 * The tables of JSON texts as relations with the columns of the database's tables. Each takes a query
 * of rows with `time`, `json` and `_offset`.
 */

export type TextTable = keyof typeof TEXT_TABLES

/** Rows of the tables of before the archive, in a folder for each table. */
export const ADOPTED_FOLDER = '_adopted'

export const TEXT_RELATIONS: Readonly<Record<TextTable, (rows: string) => string>> = {
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
    ].join()} FROM (${rows}) QUALIFY row_number() OVER (PARTITION BY instance, at ORDER BY _offset) = 1`,

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
