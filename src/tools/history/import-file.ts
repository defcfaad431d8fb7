import { type IdRange, subtract } from '../../foundation/market/id-ranges.ts'
import type { TimeUnit } from '../../foundation/market/time-unit.ts'
import { extend, noteChecksum } from './compare.ts'
import { type Checksum, checksumOf, type DailyFile } from './daily-file.ts'
import { DailyRows, type DefectKind, type RowMark } from './daily-rows.ts'
import { DamagedFileError } from './daily-zip.ts'
import type { HistoryStore } from './history-store.ts'
import { Portions } from './portions.ts'
import type { TradePublisher } from './trade-publisher.ts'

/** Defects with which the other rows of a file are still true. */
const HARMLESS: ReadonlySet<DefectKind> = new Set(['repeated', 'second'])

/** A whole file, read once before anything of it is published. */
export interface ReadFile {
  readonly file: DailyFile
  readonly rows: DailyRows
  readonly checksum: Checksum
  /** Null if nothing of it may be published: its defects say why. */
  readonly ids: { readonly first: RowMark; readonly last: RowMark; readonly unit: TimeUnit } | null
}

/** Reads a file to its end. @throws TapelineError `INPUT` if it cannot be read */
export async function readWhole(file: DailyFile, onProgress: (rows: DailyRows) => void): Promise<ReadFile> {
  const rows = new DailyRows(file)
  const checksum = await checksumOf(file)
  noteChecksum(rows, checksum)
  let isHarmless = checksum !== 'differs'
  try {
    while (await rows.fill()) {
      onProgress(rows)
      while (rows.next());
    }
  } catch (error) {
    if (!(error instanceof DamagedFileError)) throw error
    rows.note('file', error.message)
  } finally {
    await rows.close()
  }
  isHarmless &&= [...rows.kinds].every((kind) => HARMLESS.has(kind))
  const { first, last, unit } = rows
  const ids = isHarmless && first !== null && last !== null && unit !== null ? { first, last, unit } : null
  return { file, rows, checksum, ids }
}

/** What was done with the ids of a file, as ranges. */
export interface Imported {
  readonly published: readonly IdRange[]
  /** Ids that were stored before. */
  readonly stored: number
  /** Ids of open gaps, which ingestion backfills. */
  readonly left: number
}

/**
 * Publishes the rows of a file whose ids are not stored and not in an open gap.
 *
 * @param epoch of the ids
 * @param open ids of open gaps
 * @param publisher null: nothing is published, only counted
 */
export async function publishMissing(
  { file, rows: read }: ReadFile,
  store: Pick<HistoryStore, 'idsOf'>,
  epoch: number,
  open: readonly IdRange[],
  publisher: TradePublisher | null,
  onProgress: (rows: DailyRows) => void,
): Promise<Imported> {
  const rows = new DailyRows(file)
  const published: IdRange[] = []
  const counts = { stored: 0, left: 0 }
  const from = read.first?.id ?? 0
  const to = read.last?.id ?? 0
  const known = new Portions(store.idsOf(file, { from, to }, epoch))
  const gaps = new Portions(once(subtract(open, [])))
  try {
    let stored = await known.more()
    let gap = await gaps.more()
    while (await rows.fill()) {
      if (rows.facts?.crc !== read.facts?.crc) throw new DamagedFileError('it changed while it was read')
      onProgress(rows)
      while (rows.next()) {
        const { id } = rows.fields
        while (stored !== null && stored.to < id) stored = known.next() ?? (await known.more())
        while (gap !== null && gap.to < id) gap = gaps.next() ?? (await gaps.more())
        if (stored !== null && stored.from <= id) counts.stored++
        else if (gap !== null && gap.from <= id) counts.left++
        else {
          extend(published, id)
          if (publisher?.add(rows) === true) await publisher.flush()
        }
      }
    }
    await publisher?.finish()
  } finally {
    await Promise.all([rows.close(), known.close()])
  }
  return { published, ...counts }
}

async function* once<Item>(items: readonly Item[]): AsyncGenerator<readonly Item[]> {
  yield items
}
