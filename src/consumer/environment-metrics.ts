import { TRADE_TYPES } from '../foundation/market/event.ts'
import { GAP_CAUSE_NAMES } from '../foundation/market/gap-causes.ts'
import type { MetricSpec, Reading } from '../foundation/telemetry/metrics.ts'
import type { Environment } from './environment-probe.ts'

/** All other causes count as `other`. */
const CAUSES: ReadonlySet<string> = new Set(GAP_CAUSE_NAMES)

/** Metrics of the database and the topics. Every consumer of a database exports the same values. */
export const ENVIRONMENT_METRICS: ReadonlyArray<MetricSpec<Environment>> = [
  {
    kind: 'gauge',
    name: 'tapeline_consumer_database_size_bytes',
    help: 'Size of the database with its indexes, read every minute. SQL does not show the free disk space.',
    read: ({ database }) => database?.sizeBytes ?? null,
  },
  {
    kind: 'gauge',
    name: 'tapeline_consumer_ledger_gaps',
    help: 'Rows of the ledger by event type, status and cause, read every minute.',
    labels: ['type', 'status', 'cause'],
    read: ({ database }) => (database === null ? null : ledgerReading(database.gaps)),
  },
  {
    kind: 'gauge',
    name: 'tapeline_consumer_unresolved_dead_letters',
    help: 'Dead letters that have not been stored since, read every minute.',
    read: ({ database }) => database?.unresolvedDeadLetters ?? null,
  },
  {
    kind: 'gauge',
    name: 'tapeline_consumer_topic_retention_seconds',
    help: 'Retention time of a topic, read every ten minutes; absent where this user may not read it.',
    labels: ['topic'],
    read: ({ retentionMs }) =>
      [...retentionMs].map(([topic, ms]) => ({ labels: { topic }, value: ms / 1000 })),
  },
]

/**
 * Statuses of missing ids always exist with a count of 0, so that alert rules have a series to
 * evaluate.
 */
const OPEN: NonNullable<Environment['database']>['gaps'] = TRADE_TYPES.flatMap((type) =>
  ['open', 'unrecoverable'].map((status) => ({ type, status, cause: 'reconnect', count: 0 })),
)

function ledgerReading(gaps: NonNullable<Environment['database']>['gaps']): Reading {
  const counts = new Map<string, { labels: { type: string; status: string; cause: string }; value: number }>()
  for (const { type, status, cause: told, count } of [...OPEN, ...gaps]) {
    const cause = CAUSES.has(told) ? told : 'other'
    const key = `${type} ${status} ${cause}`
    counts.set(key, { labels: { type, status, cause }, value: (counts.get(key)?.value ?? 0) + count })
  }
  return [...counts.values()]
}
