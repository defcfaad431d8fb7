import type { ArchiveReader } from '../../foundation/archive/archive-reader.ts'
import type { ArchiveDay, ArchiveSnapshot, SnapshotChain } from '../../foundation/archive/archive-snapshot.ts'
import { DAY_TABLES } from '../../foundation/archive/tables.ts'

const DAY_MS = 86_400_000
/**
 * A day is usually published half an hour after its end, or after its last rows; an import that another
 * process archived waits for the hourly compaction.
 */
const PUBLISHED_WITHIN_MS = 3 * 3_600_000

export interface DayStatus {
  readonly table: string
  readonly date: string
  /** Number of the newest list; null before the day is published. */
  readonly list: number | null
  readonly publishedAt: string | null
  /** Counts published files. */
  readonly files: number
  readonly rows: number
  readonly bytes: number
  /** Null without published rows. */
  readonly bytesPerRow: number | null
  /** Rows of segments that are not published; repeats are counted. */
  readonly segmentRows: number
  /** Those of a day that is published: they come with its next list. */
  readonly lateRows: number
  /** When the last of these segments was committed; null without any. */
  readonly lastSegmentAt: string | null
}

export interface ChainStatus {
  readonly topic: string
  readonly topicId: string
  readonly partition: number
  /** Null if nothing has begun it. */
  readonly incarnation: number | null
  /** Everything below this offset is archived. */
  readonly nextOffset: number | null
  /** Records that are not entirely in published days. */
  readonly records: number
  readonly lastRecordAt: string | null
}

export interface ArchiveReport {
  readonly archive: string
  /** Name of the exchange. */
  readonly source: string
  readonly timeUnit: string
  readonly days: readonly DayStatus[]
  /** By table: the time of its newest row; null without rows. */
  readonly newest: Readonly<Record<string, { readonly at: string; readonly ageMs: number } | null>>
  readonly chains: readonly ChainStatus[]
  readonly problems: readonly string[]
}

/** Describes what an archive has. @throws TapelineError `ARCHIVE` if a list or record is damaged */
export async function archiveReport(reader: ArchiveReader, nowMs: number): Promise<ArchiveReport> {
  return reader.read(async (snapshot) => {
    const { store, mark } = reader
    const days: DayStatus[] = []
    const newest: Record<string, { at: string; ageMs: number } | null> = {}
    for (const table of DAY_TABLES.keys()) {
      days.push(...(await snapshot.days(table)).map(dayStatus))
      newest[table] = await newestRow(reader, snapshot, table, nowMs)
    }
    return {
      archive: store.name,
      ...mark,
      days,
      newest,
      chains: snapshot.chains.map(chainStatus),
      problems: problemsOf(days, snapshot, nowMs),
    }
  })
}

function dayStatus({ table, date, list, pending }: ArchiveDay): DayStatus {
  const files = list?.files ?? []
  const rows = files.reduce((sum, file) => sum + file.rows, 0)
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0)
  const segmentRows = pending.reduce((sum, { days }) => sum + (days[date] ?? 0), 0)
  const committedAt = pending.at(-1)?.committedAt
  return {
    ...{ table, date, list: list?.number ?? null, files: files.length, rows, bytes, segmentRows },
    publishedAt: list === null ? null : isoTime(list.publishedAt),
    bytesPerRow: rows === 0 ? null : Math.round((bytes / rows) * 100) / 100,
    lateRows: list === null ? 0 : segmentRows,
    lastSegmentAt: committedAt === undefined ? null : isoTime(committedAt),
  }
}

function chainStatus({
  partition: { topic, topicId, partition },
  head,
  records,
}: SnapshotChain): ChainStatus {
  const last = records.at(-1)
  return {
    ...{ topic, topicId, partition, records: records.length },
    incarnation: head?.incarnation ?? null,
    nextOffset: head?.nextOffset ?? null,
    lastRecordAt: last === undefined ? null : isoTime(last.committedAt),
  }
}

async function newestRow({ duckDb }: ArchiveReader, snapshot: ArchiveSnapshot, table: string, nowMs: number) {
  const date = (await snapshot.dates(table)).at(-1)
  if (date === undefined) return null
  const time = DAY_TABLES.get(table)?.columns[0]?.name
  const relation = await snapshot.relation(table, { symbols: null, fromMs: Date.parse(date), toMs: null })
  const [newest] = await duckDb.rows<{ ms: bigint | null }>(
    `SELECT epoch_ms(max(${time})) AS ms FROM (${relation})`,
  )
  const ms = Number(newest?.ms ?? 0)
  return newest?.ms == null ? null : { at: isoTime(ms), ageMs: Math.max(0, nowMs - ms) }
}

function problemsOf(days: readonly DayStatus[], { chains }: ArchiveSnapshot, nowMs: number): string[] {
  const lastDate = days
    .map(({ date }) => date)
    .sort()
    .at(-1)
  const late = days.filter(({ list, date, lastSegmentAt }) => {
    // The service publishes the last day a day later: no row shows that it is over.
    const overMs = Date.parse(date) + DAY_MS * (date === lastDate ? 2 : 1)
    const addedMs = Date.parse(lastSegmentAt ?? '')
    // A record of a later time comes from a wrong clock.
    const sinceMs = addedMs <= nowMs ? Math.max(overMs, addedMs) : overMs
    return list === null && nowMs > sinceMs + PUBLISHED_WITHIN_MS
  })
  const lost = chains.flatMap(({ path, records }) => {
    const count = records.reduce((sum, record) => sum + record.lost, 0)
    return count === 0 ? [] : [`${path}: ${count} messages expired in Kafka before they were archived`]
  })
  const unbegun = chains.flatMap(({ path, head }) =>
    head === null ? [`${path}: the chain has no beginning`] : [],
  )
  return [
    ...late.map(({ table, date }) => `${table} ${date}: the day is over and not published`),
    ...lost,
    ...unbegun,
  ]
}

function isoTime(ms: number): string {
  return new Date(ms).toISOString()
}
