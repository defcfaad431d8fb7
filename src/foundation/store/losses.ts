import type { Queryable } from './database.ts'

/**
 * `retention`: they left the topic. `recreated`: the topic itself was deleted, and made again under its name. `start`: none was
 * lost; the consumer began there on its very first start, and was never meant to store what stood before.
 */
export type LossCause = 'retention' | 'recreated' | 'start'

/**
 * Messages left a partition before they were stored, up to `to`. A symbol and type shows by its next event what it has
 * lost; until then it is not in `seen`. Kept, since another consumer may be the one that meets that event.
 */
export interface Loss {
  readonly topicId: string
  readonly partition: number
  /** The offset that reading went on at. */
  readonly to: number
  readonly cause: LossCause
  /** `SYMBOL eventType` of those whose ledger row is written, or which had lost nothing. */
  readonly seen: readonly string[]
}

const PREFIX = 'loss:'

/** The later loss counts; of the same one, what either has seen. */
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
    // Earlier versions noted no cause: they knew but one.
    const loss: Loss = { cause: 'retention', ...JSON.parse(value) }
    losses.set(lossKey(loss), mergeLosses(losses.get(lossKey(loss)), loss))
  }
  return [...losses.values()]
}

/**
 * In the transaction that stores what was seen: a row a loss, and one for each symbol and type that was seen. Rows are only
 * added, since a consumer has no right to change what is in `meta`.
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
