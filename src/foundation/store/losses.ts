import { z } from 'zod'
import type { ConsumerCause } from '../market/gap-causes.ts'
import type { Queryable } from './database.ts'
import { addFacts, readFacts } from './meta.ts'

/**
 * `retention`: the messages expired. `recreated`: the topic was deleted and created again. `start`: the
 * consumer began there on its first start, and was not meant to store earlier messages.
 */
export type LossCause = ConsumerCause | 'start'

const CAUSES = ['retention', 'recreated', 'start'] as const satisfies readonly LossCause[]

const LOSS = z.object({
  topicId: z.string(),
  partition: z.int(),
  /** The offset at which reading resumed. */
  to: z.int(),
  /** Earlier versions stored no cause, because they had only one. */
  cause: z.enum(CAUSES).default('retention'),
  /** `SYMBOL eventType` of those whose ledger row is written, or which lost nothing. */
  seen: z.array(z.string()).readonly(),
})

/**
 * Messages left a partition, up to `to`, before they were stored. The next event of a symbol and type shows
 * what it has lost, perhaps to another consumer; until then it is not in `seen`.
 */
export type Loss = Readonly<z.infer<typeof LOSS>>

const PREFIX = 'loss:'

/** Returns the later loss; for the same loss, merges what either has seen. */
export function mergeLosses(stored: Loss | undefined, given: Loss): Loss {
  if (stored === undefined || stored.to < given.to) return given
  if (stored.to > given.to) return stored
  return { ...given, seen: [...new Set([...stored.seen, ...given.seen])] }
}

export async function readLosses(connection: Queryable): Promise<Loss[]> {
  const losses = new Map<string, Loss>()
  for (const value of await readFacts(connection, PREFIX)) {
    const loss = LOSS.parse(value)
    losses.set(lossKey(loss), mergeLosses(losses.get(lossKey(loss)), loss))
  }
  return [...losses.values()]
}

/** Writes one row per loss, and one per stream that was seen, in the transaction of the events. */
export function writeLosses(connection: Queryable, losses: Iterable<Loss>): Promise<void> {
  const facts = [...losses].flatMap((loss) => {
    const key = `${PREFIX}${lossKey(loss)}:${loss.to}`
    const seen = loss.seen.map((one) => ({ key: `${key}:${one}`, value: { ...loss, seen: [one] } }))
    return [{ key, value: { ...loss, seen: [] } }, ...seen]
  })
  return addFacts(connection, facts)
}

export function lossKey({ topicId, partition }: Pick<Loss, 'topicId' | 'partition'>): string {
  return `${topicId}:${partition}`
}
