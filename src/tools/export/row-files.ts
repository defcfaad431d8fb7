import { closeSync, openSync, writeFileSync } from 'node:fs'
import { constants, zstdCompressSync } from 'node:zlib'
import { fileWriter, ParquetWriter } from 'hyparquet-writer'
import type { EventType } from '../../foundation/market/event.ts'
import type { TextRow } from '../../foundation/store/text-reader.ts'
import { COLUMNS, KINDS, type ParquetValue, parquetSchema } from './columns.ts'

export const FORMATS = ['parquet', 'csv'] as const
export type Format = (typeof FORMATS)[number]

export interface RowFile {
  add(rows: readonly TextRow[]): void
  finish(): void
}

const ROW_GROUP = 100_000

export function openRowFile(format: Format, path: string, type: EventType): RowFile {
  return format === 'csv' ? csvFile(path, type) : parquetFile(path, type)
}

function parquetFile(path: string, type: EventType): RowFile {
  const columns = COLUMNS[type]
  const writer = new ParquetWriter({
    writer: fileWriter(path),
    schema: parquetSchema(type),
    codec: 'ZSTD',
    compressors: {
      ZSTD: (input) => zstdCompressSync(input, { params: { [constants.ZSTD_c_compressionLevel]: 3 } }),
    },
    createdBy: 'tapeline',
  })
  let held: ParquetValue[][] = columns.map(() => [])
  const flush = () => {
    if ((held[0]?.length ?? 0) === 0) return
    // Writing to a file is synchronous, so there is no promise to await.
    void writer.write({
      columnData: columns.map(({ name }, i) => ({ name, data: held[i] ?? [] })),
      rowGroupSize: ROW_GROUP,
    })
    held = columns.map(() => [])
  }
  return {
    add(rows) {
      for (const row of rows) {
        for (const [i, { kind }] of columns.entries()) {
          const text = row[i] ?? null
          held[i]?.push(text === null ? null : KINDS[kind].parquet(text))
        }
        if (held[0]?.length === ROW_GROUP) flush()
      }
    },
    finish() {
      flush()
      void writer.finish()
    },
  }
}

function csvFile(path: string, type: EventType): RowFile {
  const columns = COLUMNS[type]
  const file = openSync(path, 'w')
  writeFileSync(file, `${columns.map(({ name }) => name).join()}\n`)
  return {
    add(rows) {
      // Null is empty.
      const values = (row: TextRow) =>
        columns.map(({ kind }, i) => (row[i] == null ? '' : KINDS[kind].csv(row[i])))
      // writeFileSync writes everything; a single write call may not.
      writeFileSync(file, rows.map((row) => `${values(row).join()}\n`).join(''))
    },
    finish: () => closeSync(file),
  }
}
