import { z } from 'zod'
import { TRADE_TYPES } from '../market/event.ts'
import { epochField, idField, symbolField, timeMsField } from '../market/fields.ts'
import type { Queryable } from './database.ts'
import { addFacts, readFact } from './meta.ts'

const LOST_IDS = z.object({
  symbol: symbolField,
  eventType: z.enum(TRADE_TYPES),
  epoch: epochField,
  /** Ids that left Kafka before they were stored; null if the events are contiguous. */
  range: z.object({ from: idField, to: idField }).nullable(),
  fromMs: timeMsField,
  toMs: timeMsField,
  cause: z.string(),
  detectedMs: timeMsField,
})

/**
 * A stream of trades whose messages were lost before they were stored: the ids between its last
 * stored event and the first one after, and lost backfilled trades, which only the ledger can tell.
 */
export type LostIds = z.infer<typeof LOST_IDS>

/** Lost ids that the consumer has not requested from ingestion yet. */
export interface PendingLoss {
  readonly key: string
  readonly lost: LostIds
  /** The revision of the requests for them, once it is fixed. */
  readonly revision: number | null
}

const PREFIX = 'lost:'
const LEDGER_PREFIX = 'ledger:'

/** @param all keys that name the loss and the stream; writing one again changes nothing */
export function noteLostIds(
  connection: Queryable,
  all: ReadonlyArray<{ readonly key: string; readonly lost: LostIds }>,
): Promise<void> {
  return addFacts(
    connection,
    all.map(({ key, lost }) => ({ key: `${PREFIX}${key}`, value: lost })),
  )
}

/** Returns the unsettled losses, one per stream. */
export async function readPendingLosses(connection: Queryable): Promise<PendingLoss[]> {
  const { rows } = await connection.query<{ key: string; value: string; revision: string | null }>(
    `SELECT lost.key, lost.value, asked.value AS revision
     FROM meta AS lost LEFT JOIN meta AS asked ON asked.key = 'asked:' || lost.key
     WHERE lost.key LIKE '${PREFIX}%' AND NOT EXISTS (SELECT FROM meta WHERE meta.key = 'settled:' || lost.key)
     ORDER BY lost.key`,
  )
  const first = new Map<string, PendingLoss>()
  for (const { key, value, revision } of rows) {
    const lost = LOST_IDS.parse(JSON.parse(value))
    const stream = `${lost.symbol} ${lost.eventType}`
    if (!first.has(stream))
      first.set(stream, { key, lost, revision: revision === null ? null : Number(revision) })
  }
  return [...first.values()]
}

/** Fixes the revision of the requests, so that a retry repeats them. @returns the one that counts */
export async function fixRevision(connection: Queryable, key: string, revision: number): Promise<number> {
  await addFacts(connection, [{ key: `asked:${key}`, value: revision }])
  return Number((await readFact(connection, `asked:${key}`)) ?? revision)
}

/** Marks a loss as settled: nothing is left to request. */
export function settle(connection: Queryable, key: string): Promise<void> {
  return addFacts(connection, [{ key: `settled:${key}`, value: '' }])
}

/** Returns the topics that the ledger was read from, by Kafka's id, with the start time; 0 for the first. */
export async function readLedgerTopics(connection: Queryable): Promise<ReadonlyMap<string, number>> {
  const { rows } = await connection.query<{ id: string; since: string }>(
    `SELECT substr(key, ${LEDGER_PREFIX.length + 1}) AS id, value AS since FROM meta WHERE key LIKE '${LEDGER_PREFIX}%'`,
  )
  return new Map(rows.map(({ id, since }) => [id, Number(since)]))
}

export function noteLedgerTopic(connection: Queryable, id: string, sinceMs: number): Promise<void> {
  return addFacts(connection, [{ key: `${LEDGER_PREFIX}${id}`, value: sinceMs }])
}
