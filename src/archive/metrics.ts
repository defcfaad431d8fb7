import { DAY_TABLES, TEXT_TABLES } from '../foundation/archive/tables.ts'
import { byLabel, type Metrics } from '../foundation/telemetry/metrics.ts'
import type { ArchiveStatus } from '../foundation/telemetry/status.ts'

const TABLES = [...DAY_TABLES.keys(), ...Object.values(TEXT_TABLES).map(({ name }) => name)]

/** The metrics of the archive. */
export const ARCHIVE_METRICS: Metrics<ArchiveStatus> = {
  tapeline_archive_ready: {
    help: '1 while partitions are assigned and segments can be written.',
    read: ({ ready }) => (ready ? 1 : 0),
  },
  tapeline_archive_messages_consumed_total: {
    help: 'Messages taken from Kafka.',
    read: ({ consumed }) => consumed,
  },
  tapeline_archive_messages_pending: {
    help: 'Messages taken from Kafka and not archived yet.',
    read: ({ pending }) => pending,
  },
  tapeline_archive_held_bytes: {
    help: 'Memory of rows that are not archived yet.',
    read: ({ heldBytes }) => heldBytes,
  },
  tapeline_archive_oldest_uncommitted_seconds: {
    help: 'Time since the oldest message that is not archived was read from Kafka.',
    read: ({ oldestUncommittedMs }) => oldestUncommittedMs / 1000,
  },
  tapeline_archive_rows_total: {
    help: 'Archived rows, by table.',
    labels: ['table'],
    read: ({ rows }) => byLabel('table', rows, TABLES),
  },
  tapeline_archive_segments_total: { help: 'Committed segments.', read: ({ segments }) => segments },
  tapeline_archive_segment_bytes_total: {
    help: 'Bytes of the files of committed segments.',
    read: ({ bytes }) => bytes,
  },
  tapeline_archive_dead_letters_total: {
    help: 'Messages that are no valid events, archived as dead letters.',
    read: ({ deadLetters }) => deadLetters,
  },
  tapeline_archive_lost_messages_total: {
    help: 'Messages that Kafka no longer had.',
    read: ({ lost }) => lost,
  },
  tapeline_archive_published_days_total: {
    help: 'Published days of a table, also those published again with late rows.',
    read: ({ publishedDays }) => publishedDays,
  },
  tapeline_archive_published_rows_total: {
    help: 'Rows written to published days.',
    read: ({ publishedRows }) => publishedRows,
  },
  tapeline_archive_duplicates_total: {
    help: 'Rows that repeated a row of a published day, and were left out.',
    read: ({ duplicates }) => duplicates,
  },
  tapeline_archive_conflicts_total: {
    help: 'Repeated rows whose content differs from the row that stayed.',
    read: ({ conflicts }) => conflicts,
  },
  tapeline_archive_failed_compactions_total: {
    help: 'Compactions that failed; they are repeated after a minute.',
    read: ({ failedCompactions }) => failedCompactions,
  },
  tapeline_archive_keyframes_total: {
    help: 'Order books that were rebuilt and stored, so that reading one at any time is fast.',
    read: ({ keyframes }) => keyframes,
  },
  tapeline_archive_lag_messages: {
    help: 'Messages in Kafka that are not archived yet, by partition; absent while unknown.',
    labels: ['topic', 'partition'],
    read: ({ partitions }) =>
      partitions.flatMap(({ topic, partition, lag }) =>
        lag === null ? [] : [{ labels: { topic, partition: String(partition) }, value: lag }],
      ),
  },
}
