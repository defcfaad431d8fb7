import type { ArchiveReader } from '../../foundation/archive/archive-reader.ts'
import type { ArchiveSnapshot, RowRange } from '../../foundation/archive/archive-snapshot.ts'
import { quoted } from '../../foundation/archive/duckdb.ts'
import { ARCHIVE_TABLES } from '../../foundation/archive/tables.ts'
import type { Queryable } from '../../foundation/store/database.ts'
import { archiveQueries } from '../archive/archive-queries.ts'
import { createViews } from '../archive/views.ts'
import { depthViews } from './archive-depth.ts'
import { LOOK_BACK_MS } from './books.ts'
import { ELSEWHERE_MS } from './continuity.ts'
import type { Scope } from './scope.ts'
import type { StoredUntil } from './watermark.ts'

/** Sorts after the letters of another message at the same place. */
const DIGEST = "from_hex(md5(concat(coalesce(hex(key), ''), '/', coalesce(hex(payload), ''))))"

/**
 * Makes an archive answer the statements of the checks, as the tables do. It does not know whether a
 * dead letter was retried.
 *
 * @param range of the rows, if other statements need more than the scope
 */
export async function archiveTables(
  { duckDb, mark }: Pick<ArchiveReader, 'duckDb' | 'mark'>,
  snapshot: ArchiveSnapshot,
  scope: Scope,
  range: RowRange = scope,
): Promise<Queryable> {
  await createViews(duckDb, snapshot, 'trades book_ticker gaps', rangeOf(range))
  const ofDepth = { ...rangeOf(range), fromMs: range.fromMs === null ? null : range.fromMs - LOOK_BACK_MS }
  const [diffs, snapshots] = [ARCHIVE_TABLES.depth.name, ARCHIVE_TABLES.depthSnapshot.name]
  const views = depthViews(
    await snapshot.relation(diffs, ofDepth),
    await snapshot.relation(snapshots, ofDepth),
  )
  for (const view of views) await duckDb.run(view)
  await duckDb.run(`CREATE OR REPLACE TEMP VIEW dead_letters AS
    SELECT topic, coalesce(TRY_CAST(topic_id AS UUID), '00000000-0000-0000-0000-000000000000'::UUID) AS topic_id, partition, kafka_offset,
      ${DIGEST} AS digest, reason, key, payload, headers::VARCHAR[][] AS headers, NULL::TIMESTAMPTZ AS resolved_at
    FROM (${await snapshot.textRelation('deadLetters')})`)
  await duckDb.run(`CREATE OR REPLACE TEMP VIEW meta AS
    SELECT 'source' AS key, ${quoted(mark.source)} AS value
    UNION ALL SELECT 'time_unit', ${quoted(mark.timeUnit)}
    UNION ALL SELECT concat('recording:', instance, ' ', epoch_ms("at")), json FROM (${await snapshot.textRelation('recordings')})`)
  await duckDb.run(`CREATE OR REPLACE TEMP VIEW consumer_offsets AS ${offsetsSql(snapshot)}`)
  return archiveQueries(duckDb)
}

/** The newest segments of a partition have rows of a day: everything of earlier days is stored. */
export function storedUntil({ chains }: ArchiveSnapshot): StoredUntil {
  return ({ topic, partition }) => {
    const ofPlace = chains.filter(
      (one) => one.partition.topic === topic && one.partition.partition === partition,
    )
    const dates = ofPlace.flatMap(({ records }) =>
      records.flatMap(({ files }) => files.flatMap(({ days }) => Object.keys(days))),
    )
    return Math.max(0, ...[...new Set(dates)].map((date) => Date.parse(date)))
  }
}

/** Ids that seem missing at an edge of a scope are looked for outside. */
function rangeOf({ symbols, fromMs, toMs }: RowRange): RowRange {
  return {
    symbols,
    fromMs: fromMs === null ? null : fromMs - ELSEWHERE_MS,
    toMs: toMs === null ? null : toMs + ELSEWHERE_MS,
  }
}

/** Where each chain ends: everything before it is in the archive. */
function offsetsSql({ chains }: ArchiveSnapshot): string {
  const rows = chains.flatMap(({ partition: { topic, topicId, partition }, head }) =>
    head === null
      ? []
      : [`(${quoted(topic)}, ${quoted(topicId)}, ${partition}, ${head.nextOffset}, ${head.leaderEpoch})`],
  )
  const none = "('', '', 0, 0, 0)"
  return `SELECT * FROM (VALUES ${[none, ...rows].join()}) AS chains (topic, topic_id, partition, next_offset, leader_epoch)
    WHERE topic <> ''`
}
