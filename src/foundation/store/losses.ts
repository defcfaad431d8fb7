import type { ConsumerCause } from '../market/gap-causes.ts'
import type { Queryable } from './database.ts'

/**
 * `retention`: the messages expired. `recreated`: the topic was deleted and recreated under its
 * name. `start`: none was lost; the consumer began there on its first start, and was not meant to
 * store earlier messages.
 */
export type LossCause = ConsumerCause | 'start'

/**
 * Messages left a partition, up to `to`, before they were stored. The next event of a symbol and
 * type shows what it has lost; until then it is not in `seen`. Stored, because another consumer may
 * read that event.
 */
export interface Loss {
  readonly topicId: string
  readonly partition: number
  /** The offset at which reading resumed. */
  readonly to: number
  readonly cause: LossCause
  /** `SYMBOL eventType` of those whose ledger row is written, or which lost nothing. */
  readonly seen: readonly string[]
}

const PREFIX = 'loss:'

/** Returns the later loss; for the same loss, merges what either has seen. */
export function mergeLosses(stored: Loss | undefined, given: Loss): Loss {
  if (stored === undefined || stored.to < given.to) return given
  if (stored.to > given.to) return stored
  return { ...given, seen: [...new Set([...stored.seen, ...given.seen])] }
}

export async function readLosses(connection: Queryable): Promise<Loss[]> {
  const { rows } = await connection.query<{ value: string }>(
    `SELECT value FROM meta WHERE key LIKE '${PREFIX}%'`,
  )
  const losses = new Map<string, Loss>()
  for (const { value } of rows) {
    // Earlier versions stored no cause, because they had only one.
    const loss: Loss = { cause: 'retention', ...JSON.parse(value) }
    losses.set(lossKey(loss), mergeLosses(losses.get(lossKey(loss)), loss))
  }
  return [...losses.values()]
}

/**
 * Writes one row per loss, and one per symbol and type that was seen, in the transaction that
 * stores the events. Only adds rows, since a consumer must not change rows of `meta`.
 */
export async function writeLosses(connection: Queryable, losses: Iterable<Loss>): Promise<void> {
  for (const loss of losses) {
    const key = `${PREFIX}${lossKey(loss)}:${loss.to}`
    const facts = [
      { key, value: { ...loss, seen: [] } },
      ...loss.seen.map((one) => ({ key: `${key}:${one}`, value: { ...loss, seen: [one] } })),
    ]
    await connection.query(
      `INSERT INTO meta (key, value)
       SELECT key, value::text FROM jsonb_to_recordset($1::jsonb) AS fact (key text, value jsonb) ON CONFLICT DO NOTHING`,
      [JSON.stringify(facts)],
    )
  }
}

export function lossKey({ topicId, partition }: Pick<Loss, 'topicId' | 'partition'>): string {
  return `${topicId}:${partition}`
}
