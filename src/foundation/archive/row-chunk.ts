import { type ArchiveColumn, COLUMN_KINDS } from './tables.ts'

/** Rows of one chunk: the most that a DuckDB data chunk takes. */
export const CHUNK_ROWS = 2048

/** Memory of a chunk: enough for the columns of every table, with their bits for nulls. */
export const BLOCK_BYTES = 256 << 10

/** The longest text that a `duckdb_string_t` holds itself (duckdb.h); longer ones need a pointer. */
export const INLINE_BYTES = 12

const TWO_TO_32 = 2 ** 32

/** Values of a column, as DuckDB has them in a vector (little-endian). */
export interface ColumnValues {
  readonly column: ArchiveColumn
  readonly bytes: Uint8Array<ArrayBuffer>
  /** The same bytes, twice. */
  readonly words: Uint32Array<ArrayBuffer>
  readonly view: DataView
  /** One bit per row, set if the value is not null; null if the column has no nulls. */
  readonly validity: Uint8Array<ArrayBuffer> | null
  /** Texts that are too long for their value. */
  readonly longTexts: Array<{ readonly row: number; readonly bytes: Uint8Array }>
}

/** At most {@link CHUNK_ROWS} rows. */
export interface RowChunk {
  rows: number
  /** The memory of the columns. */
  readonly block: ArrayBuffer
  readonly columns: readonly ColumnValues[]
}

/** Returns a chunk without rows. */
export function emptyChunk(columns: readonly ArchiveColumn[]): RowChunk {
  return chunkIn(new ArrayBuffer(BLOCK_BYTES), columns)
}

/** Returns a chunk without rows in a block of {@link BLOCK_BYTES}. Nothing is null. */
export function chunkIn(block: ArrayBuffer, columns: readonly ArchiveColumn[]): RowChunk {
  let at = 0
  const next = (length: number) => {
    const bytes = new Uint8Array(block, at, length)
    at += length
    return bytes
  }
  const values = columns.map((column): ColumnValues => {
    const bytes = next(COLUMN_KINDS[column.kind].bytes * CHUNK_ROWS)
    return {
      column,
      bytes,
      words: new Uint32Array(block, bytes.byteOffset, bytes.length / 4),
      view: new DataView(block, bytes.byteOffset, bytes.length),
      validity: column.isNullable ? next(CHUNK_ROWS / 8).fill(0xff) : null,
      longTexts: [],
    }
  })
  return { rows: 0, block, columns: values }
}

/**
 * Memory of chunks, used again and again: a collector that has to find out that it is free lets the
 * process grow.
 */
export class BlockPool {
  readonly #free: ArrayBuffer[] = []

  take(): ArrayBuffer {
    return this.#free.pop() ?? new ArrayBuffer(BLOCK_BYTES)
  }

  /** Takes back the memory of chunks that nothing reads any more. */
  release(chunks: RowChunk[]): void {
    for (const { block } of chunks.splice(0)) this.#free.push(block)
  }
}

/** @param value a safe integer */
export function writeInteger({ words }: ColumnValues, row: number, value: number): void {
  // An assignment keeps the lower 32 bits.
  words[row * 2] = value
  words[row * 2 + 1] = Math.floor(value / TWO_TO_32)
}

/** Does nothing where a column has no nulls. */
export function writeNull({ validity }: ColumnValues, row: number): void {
  if (validity !== null) validity[row >> 3] = (validity[row >> 3] ?? 0) & ~(1 << (row & 7))
}
