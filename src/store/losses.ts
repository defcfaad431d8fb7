import type { Queryable } from './database.ts'

/**
 * Messages left a partition before they were stored, up to `to`. A symbol and type shows by its next event what it has
 * lost; until then it is not in `seen`. Kept, since another consumer may be the one that meets that event.
 */
export interface Loss {
  readonly topicId: string
  readonly partition: number
  /** The offset that reading went on at. */
  readonly to: number
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
  return rows.map(({ value }): Loss => JSON.parse(value))
}

/** In the transaction that stores what was seen. */
export async function writeLosses(connection: Queryable, losses: Iterable<Loss>): Promise<void> {
  for (const loss of losses) {
    const key = `${PREFIX}${lossKey(loss)}`
    await connection.query("INSERT INTO meta (key, value) VALUES ($1, 'null') ON CONFLICT DO NOTHING", [key])
    const { rows } = await connection.query<{ value: string }>(
      'SELECT value FROM meta WHERE key = $1 FOR UPDATE',
      [key],
    )
    const stored: Loss | null = JSON.parse(rows[0]?.value ?? 'null')
    const merged = mergeLosses(stored ?? undefined, loss)
    await connection.query('UPDATE meta SET value = $2, updated_at = now() WHERE key = $1', [
      key,
      JSON.stringify(merged),
    ])
  }
}

export function lossKey({ topicId, partition }: Pick<Loss, 'topicId' | 'partition'>): string {
  return `${topicId}:${partition}`
}
