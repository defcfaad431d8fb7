import { randomUUID } from 'node:crypto'
import { rmSync } from 'node:fs'
import { utimes } from 'node:fs/promises'
import { join } from 'node:path'
import * as api from '@duckdb/node-api'
import {
  type DuckDBAppender,
  type DuckDBConnection,
  DuckDBDataChunk,
  DuckDBInstance,
  type DuckDBType,
} from '@duckdb/node-api'
import bindings from '@duckdb/node-bindings'
import { describeError, TapelineError } from '../runtime/errors.ts'
import { type EngineTexts, textsOf } from './engine-texts.ts'
import { localFiles } from './local-files.ts'
import type { RowBuffer } from './row-buffer.ts'
import type { RowChunk } from './row-chunk.ts'
import { type ArchiveColumn, COLUMN_KINDS, type ColumnKind, OFFSET_COLUMN, segmentOrderOf } from './tables.ts'

/** Files that nobody has touched for a day are removed from the archive's folder. */
const FRESH_EVERY_MS = 3_600_000

export interface DuckDbOptions {
  /** Maximum memory of the engine; more goes to a folder in `tempFolder`. */
  readonly memoryBytes: number
  readonly tempFolder: string
  readonly threads: number
}

/** A connection to an engine in this process, which has no file. Its statements run one at a time. */
export interface DuckDb {
  /** Runs a statement; the result is discarded. */
  run(sql: string): Promise<void>
  /** Runs a query. Values are as `@duckdb/node-api` gives them: 64-bit integers are bigint. */
  rows<Row>(sql: string): Promise<Row[]>
  /**
   * Runs a query and yields its rows in portions of some thousands, so that memory does not grow with
   * their number. Other statements of the connection wait until it ends.
   */
  stream<Row>(sql: string): AsyncGenerator<Row[]>
  /** Does the same with columns as the engine has them, without a value per row. Nothing is null. */
  columns(sql: string): AsyncGenerator<EngineColumns>
  /** Runs one SELECT and yields its rows as texts; at least one portion, for the columns. */
  texts(sql: string): AsyncGenerator<EngineTexts>
  /** Creates a temporary table, to be filled with chunks. */
  createTable(name: string, columns: readonly ArchiveColumn[]): Promise<ChunkTable>
  /** Writes the rows to a Parquet file, sorted as a day and compressed with Zstandard. */
  writeParquet(rows: RowBuffer, path: string): Promise<void>
  /** Makes the running statement fail. */
  interrupt(): void
}

/** Values of some thousand rows, valid until the next ones are taken. */
export interface EngineColumns {
  readonly rows: number
  bytes(column: number): Uint8Array
  /** The same bytes, in words of 32 bits, the lowest first. */
  words(column: number): Uint32Array
}

/** Returns a BIGINT of a column that is a safe integer. @param words of the column */
export function integerAt(words: Uint32Array | undefined, row: number): number {
  return ((words?.[row * 2 + 1] ?? 0) | 0) * TWO_TO_32 + (words?.[row * 2] ?? 0)
}

/** A temporary table without rows at first. */
export interface ChunkTable {
  /** Adds the rows of a chunk; nothing of it is kept. */
  add(chunk: RowChunk): void
  /** Makes the rows visible. No chunk can be added after it. */
  finish(): Promise<void>
}

export interface DuckDbEngine {
  connect(): Promise<DuckDb>
  close(): void
}

const TWO_TO_32 = 2 ** 32

const TYPES: Readonly<Record<ColumnKind, DuckDBType>> = {
  time: api.TIMESTAMPTZ,
  id: api.BIGINT,
  number: api.INTEGER,
  decimal: api.DECIMAL(20, 8),
  flag: api.BOOLEAN,
  word: api.VARCHAR,
}

/** Rows of a group of a segment: ten data chunks. */
const GROUP_ROWS = 20_480

export async function openDuckDb({ memoryBytes, tempFolder, threads }: DuckDbOptions): Promise<DuckDbEngine> {
  // Another process may use the same folder, and the engine gives its files the same names there.
  const ownFolder = join(tempFolder, `engine-${randomUUID()}`)
  await localFiles.makeFolder(ownFolder).catch((error: unknown) => {
    const message = `Temporary files cannot be written to ${tempFolder}: ${describeError(error)}`
    const fix = 'Set ARCHIVE_TEMP to a folder that this user can write.'
    throw new TapelineError('ENVIRONMENT', message, { fix, cause: error })
  })
  const stayFresh = () => {
    // If somebody has deleted it, the engine creates it again or fails with its name.
    utimes(ownFolder, new Date(), new Date()).catch(() => {})
  }
  const staysFresh = setInterval(stayFresh, FRESH_EVERY_MS).unref()
  const instance = await DuckDBInstance.create(':memory:', {
    memory_limit: `${Math.floor(memoryBytes / (1 << 20))}MiB`,
    temp_directory: ownFolder,
    threads: String(threads),
    // Nothing is fetched at run time.
    autoinstall_known_extensions: 'false',
    autoload_known_extensions: 'false',
  })
  return {
    async connect() {
      const connection = await instance.connect()
      await connection.run("SET TimeZone = 'UTC'")
      return duckDbOf(connection)
    },
    close() {
      instance.closeSync()
      clearInterval(staysFresh)
      rmSync(ownFolder, { recursive: true, force: true })
    },
  }
}

function duckDbOf(connection: DuckDBConnection): DuckDb {
  let tables = 0
  let last: Promise<unknown> = Promise.resolve()
  /** An appender must not close while a query runs. */
  const inTurn: InTurn = (work) => {
    const turn = last.then(work, work)
    last = turn
    return turn
  }
  /** Keeps the turn until the generator has ended. */
  async function* inTurns<Portion>(portions: () => AsyncGenerator<Portion>): AsyncGenerator<Portion> {
    const ended = Promise.withResolvers<void>()
    const before = last
    last = ended.promise
    // Its failure belongs to its caller.
    await before.catch(() => {})
    try {
      yield* portions()
    } finally {
      ended.resolve()
    }
  }
  return {
    run: (sql) => inTurn(async () => void (await connection.run(sql))),
    rows: <Row>(sql: string) =>
      inTurn(async () => (await connection.runAndReadAll(sql)).getRowObjects() as Row[]),
    stream: <Row>(sql: string) =>
      inTurns(async function* () {
        const result = await connection.stream(sql)
        for await (const rows of result.yieldRowObjects()) yield rows as Row[]
      }),
    columns: (sql) =>
      inTurns(async function* () {
        const result = await connection.stream(sql)
        const bytesOf = result.columnTypes().map(({ typeId }) => VALUE_BYTES[typeId] ?? 8)
        for await (const chunk of result) yield columnsOf(chunk, bytesOf)
      }),
    texts: (sql) => inTurns(() => textsOf(connection, sql)),
    createTable: (name, columns) => inTurn(() => createTable(connection, inTurn, name, columns)),
    writeParquet: (rows, path) => inTurn(() => writeParquet(connection, `segment_${++tables}`, rows, path)),
    interrupt: () => connection.interrupt(),
  }
}

/** Bytes of a value, if they are not 8. */
const VALUE_BYTES: Readonly<Partial<Record<api.DuckDBTypeId, number>>> = {
  [api.DuckDBTypeId.UTINYINT]: 1,
  [api.DuckDBTypeId.INTEGER]: 4,
  [api.DuckDBTypeId.DECIMAL]: COLUMN_KINDS.decimal.bytes,
}

function columnsOf({ chunk, rowCount }: DuckDBDataChunk, bytesOf: readonly number[]): EngineColumns {
  const columns = bytesOf.map((bytes, i) =>
    bindings.vector_get_data(bindings.data_chunk_get_vector(chunk, i), rowCount * bytes),
  )
  const words = columns.map(
    ({ buffer, byteOffset, length }) => new Uint32Array(buffer, byteOffset, length >> 2),
  )
  const none = new Uint8Array(0)
  const noWords = new Uint32Array(0)
  return { rows: rowCount, bytes: (i) => columns[i] ?? none, words: (i) => words[i] ?? noWords }
}

type InTurn = <Result>(work: () => Promise<Result>) => Promise<Result>

async function createTable(
  connection: DuckDBConnection,
  inTurn: InTurn,
  name: string,
  columns: readonly ArchiveColumn[],
): Promise<ChunkTable> {
  await connection.run(`CREATE TEMP TABLE ${name} (${columns.map(definition).join(', ')})`)
  const appender = await connection.createAppender(name)
  const chunk = chunkOf(columns)
  return {
    add: (one) => append(appender, chunk, one),
    finish: () => inTurn(async () => appender.closeSync()),
  }
}

async function writeParquet(
  connection: DuckDBConnection,
  table: string,
  rows: RowBuffer,
  path: string,
): Promise<void> {
  const columns = [...rows.table.columns, OFFSET_COLUMN]
  await connection.run(`CREATE TEMP TABLE ${table} (${columns.map(definition).join(', ')})`)
  try {
    const appender = await connection.createAppender(table)
    const chunk = chunkOf(columns)
    for (const one of rows.chunks) append(appender, chunk, one)
    appender.closeSync()
    // Sorted and in small groups, so that a reader of some symbols skips most of the file.
    await connection.run(
      `COPY (FROM ${table} ORDER BY ${segmentOrderOf(rows.table)}) TO ${quoted(path)} (FORMAT parquet, PARQUET_VERSION v2, COMPRESSION zstd, ROW_GROUP_SIZE ${GROUP_ROWS})`,
    )
  } finally {
    await connection.run(`DROP TABLE ${table}`)
  }
}

/** Returns a path as an SQL literal, for functions that read all files that match a pattern. */
export function quotedPath(path: string): string {
  return quoted(path.replaceAll(/[*?[]/g, '[$&]'))
}

/** Returns a text as an SQL literal. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", "''")}'`
}

function definition({ name, kind, isNullable }: ArchiveColumn): string {
  return `${name} ${COLUMN_KINDS[kind].sql}${isNullable ? '' : ' NOT NULL'}`
}

function chunkOf(columns: readonly ArchiveColumn[]): DuckDBDataChunk {
  return DuckDBDataChunk.create(columns.map(({ kind }) => TYPES[kind]))
}

function append(appender: DuckDBAppender, chunk: DuckDBDataChunk, rows: RowChunk): void {
  fill(chunk, rows)
  appender.appendDataChunk(chunk)
  chunk.reset()
}

/** Copies whole columns. The API's own vectors take one value at a time, at thirty times the cost. */
function fill(chunk: DuckDBDataChunk, { rows, block, columns }: RowChunk): void {
  chunk.rowCount = rows
  for (const [i, { column, bytes, validity, longTexts }] of columns.entries()) {
    const vector = bindings.data_chunk_get_vector(chunk.chunk, i)
    bindings.copy_data_to_vector(vector, 0, block, bytes.byteOffset, rows * COLUMN_KINDS[column.kind].bytes)
    for (const { row, bytes: text } of longTexts) bindings.vector_assign_string_element_len(vector, row, text)
    if (validity === null) continue
    bindings.vector_ensure_validity_writable(vector)
    bindings.copy_data_to_vector_validity(vector, 0, block, validity.byteOffset, Math.ceil(rows / 64) * 8)
  }
}
