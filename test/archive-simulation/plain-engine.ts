import type { DayToMerge, MergedDay } from '../../src/archive/day-merge.ts'
import type { LocalFiles } from '../../src/foundation/archive/local-files.ts'
import type { ObjectStore } from '../../src/foundation/archive/object-store.ts'
import type { RowBuffer } from '../../src/foundation/archive/row-buffer.ts'
import { parseJson } from '../../src/foundation/runtime/outside-text.ts'
import type { MemoryDisk } from './memory-disk.ts'

/** What the simulation knows of a row: its identity and its place. */
export interface Row {
  readonly symbol: string
  readonly timeUs: number
  readonly id: number
  /** Side and number of the level in a diff of an order book, such as `bid 1`; otherwise empty. */
  readonly level: string
  readonly offset: number
}

const TWO_TO_32 = 2 ** 32
const DAY_US = 86_400_000_000

export type EngineDefect = 'a merge leaves out a row' | 'a merge keeps repeats'

/**
 * Takes the place of DuckDB: rows as JSON. Its statements are tested with the real one
 * (archive-protocol, archive-compaction).
 */
export class PlainEngine {
  defect: EngineDefect | null = null
  readonly #disk: MemoryDisk

  constructor(disk: MemoryDisk) {
    this.#disk = disk
  }

  writeParquet = async (rows: RowBuffer, path: string): Promise<void> => this.#write(path, rowsOf(rows))

  mergeIn(store: ObjectStore, files: LocalFiles): (day: DayToMerge) => Promise<MergedDay> {
    return async ({ date, added, published, put }) => {
      const read = async (list: ReadonlyArray<{ readonly key: string }>) =>
        Promise.all(list.map(async ({ key }) => rowsIn(await files.read(await store.localCopy(key)))))
      const ofDay = (await read(added)).flat().filter((row) => dateOf(row) === date)
      const all = [...(await read(published)).flat(), ...ofDay]
      const firsts = [...Map.groupBy(all, identityOf).values()].map(([first]) => first as Row)
      const kept = this.defect === 'a merge keeps repeats' ? all : firsts
      const rows = this.defect === 'a merge leaves out a row' && published.length > 0 ? kept.slice(1) : kept
      const symbols = rows.map(({ symbol }) => symbol).sort()
      const stored = await put(async (path) => this.#write(path, rows))
      return {
        files: [
          { ...stored, rows: rows.length, firstSymbol: symbols[0] ?? '', lastSymbol: symbols.at(-1) ?? '' },
        ],
        rows: rows.length,
        duplicates: all.length - firsts.length,
        conflicts: [],
        symbols: {},
      }
    }
  }

  #write(path: string, rows: readonly Row[]): void {
    this.#disk.writeUnsynced(path, Buffer.from(JSON.stringify(rows)))
  }
}

/** @throws if the file is not whole */
export function rowsIn(bytes: Buffer): Row[] {
  const rows = parseJson(bytes.toString())
  if (!Array.isArray(rows)) throw new Error('a file is not whole')
  return rows as Row[]
}

export function identityOf({ symbol, timeUs, id, level }: Omit<Row, 'offset'>): string {
  return `${symbol} ${timeUs} ${id} ${level}`
}

export function dateOf({ timeUs }: Row): string {
  return new Date(Math.floor(timeUs / DAY_US) * (DAY_US / 1000)).toISOString().slice(0, 10)
}

export function rowsOf({ table, chunks }: RowBuffer): Row[] {
  const [time] = table.columns
  return chunks.flatMap(({ rows, columns }) => {
    const words = (name: string) => columns.find(({ column }) => column.name === name)?.words
    const integer = (name: string, row: number) => {
      const of = words(name)
      return of === undefined ? 0 : (of[2 * row + 1] ?? 0) * TWO_TO_32 + (of[2 * row] ?? 0)
    }
    const text = (name: string, row: number) => {
      const of = words(name) ?? new Uint32Array(0)
      const bytes = Buffer.from(of.slice(4 * row + 1, 4 * row + 4).buffer)
      return bytes.toString('latin1', 0, of[4 * row] ?? 0)
    }
    return Array.from({ length: rows }, (_, row) => {
      const side = text('side', row)
      return {
        symbol: text('symbol', row),
        timeUs: integer(time?.name ?? '', row),
        id: integer(table.id ?? '', row),
        level: side === '' ? '' : `${side} ${words('level')?.[row]}`,
        offset: integer('_offset', row),
      }
    })
  })
}
