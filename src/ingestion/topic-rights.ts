import type { TopicRight } from '../foundation/kafka/access.ts'
import type { TopicNames } from '../foundation/kafka/config.ts'

/** What ingestion does with each topic: it also reads back, at the start, what it has written. */
export function topicRights(names: TopicNames): ReadonlyMap<string, readonly TopicRight[]> {
  return new Map<string, readonly TopicRight[]>([
    [names.trades, ['READ', 'WRITE']],
    [names.bookTicker, ['READ', 'WRITE']],
    [names.checkpoints, ['READ', 'WRITE']],
    [names.gaps, ['READ', 'WRITE']],
    [names.deadLetters, ['WRITE']],
  ])
}
