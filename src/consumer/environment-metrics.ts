import type { MetricSpec, Reading } from '../foundation/telemetry/metrics.ts'
import type { Environment } from './environment-probe.ts'

/** Those that Tapeline writes into the ledger; what else may stand there is one. */
const CAUSES: ReadonlySet<string> = new Set([
  'reconnect',
  'restart',
  'stall',
  'silent',
  'listed',
  'delisted',
  'missed',
  'reset',
  'clock',
  'retention',
  'recreated',
  'truncation',
])

/** What the database and the topics say of themselves. Every consumer of a database shows the same. */
export const ENVIRONMENT_METRICS: ReadonlyArray<MetricSpec<Environment>> = [
  {
    kind: 'gauge',
    name: 'tapeline_consumer_database_size_bytes',
    help: 'Size of the database with its indexes, asked every minute. How much disk is free, SQL cannot see.',
    read: ({ database }) => database?.sizeBytes ?? null,
  },
  {
    kind: 'gauge',
    name: 'tapeline_consumer_ledger_gaps',
    help: 'Rows of the ledger by event type, status and cause, asked every minute.',
    labels: ['type', 'status', 'cause'],
    read: ({ database }) => (database === null ? null : ledgerReading(database.gaps)),
  },
  {
    kind: 'gauge',
    name: 'tapeline_consumer_unresolved_dead_letters',
    help: 'Dead letters that have not been stored since, asked every minute.',
    read: ({ database }) => database?.unresolvedDeadLetters ?? null,
  },
  {
    kind: 'gauge',
    name: 'tapeline_consumer_topic_retention_seconds',
    help: 'How long a topic keeps a message, asked every ten minutes; none where this user may not know.',
    labels: ['topic'],
    read: ({ retentionMs }) =>
      [...retentionMs].map(([topic, ms]) => ({ labels: { topic }, value: ms / 1000 })),
  },
]

/** Ids that are still missing count from 0, so that a rule about them always has something to look at. */
const OPEN: NonNullable<Environment['database']>['gaps'] = [
  { type: 'trade', status: 'open', cause: 'reconnect', count: 0 },
  { type: 'trade', status: 'unrecoverable', cause: 'reconnect', count: 0 },
  { type: 'aggTrade', status: 'open', cause: 'reconnect', count: 0 },
  { type: 'aggTrade', status: 'unrecoverable', cause: 'reconnect', count: 0 },
]

function ledgerReading(gaps: NonNullable<Environment['database']>['gaps']): Reading {
  const counts = new Map<string, { labels: { type: string; status: string; cause: string }; value: number }>()
  for (const { type, status, cause: told, count } of [...OPEN, ...gaps]) {
    const cause = CAUSES.has(told) ? told : 'other'
    const key = `${type} ${status} ${cause}`
    counts.set(key, { labels: { type, status, cause }, value: (counts.get(key)?.value ?? 0) + count })
  }
  return [...counts.values()]
}
