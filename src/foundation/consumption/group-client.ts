import { Consumer } from '@platformatic/kafka'
import { clientOptions, closeClient, guardConnections } from '../kafka/client.ts'
import type { KafkaConnection } from '../kafka/config.ts'
import type { TopicPartition } from '../kafka/partition.ts'

export interface GroupConfig {
  readonly kafka: KafkaConnection
  readonly groupId: string
  /** Shown in the broker's logs and metrics. */
  readonly clientId: string
  readonly sessionTimeoutMs: number
  readonly heartbeatIntervalMs: number
  readonly rebalanceTimeoutMs: number
}

export interface OffsetToCommit extends TopicPartition {
  readonly nextOffset: number
}

export interface GroupClientEvents {
  /** A rebalance has begun: no commits until the join. */
  onRebalance(): void
  /** A generation has begun with exactly these partitions. */
  onJoined(generation: number, partitions: readonly TopicPartition[]): void
  /** The client cannot be used any more; may be called more than once. */
  onEnded(error: unknown): void
}

/** One membership in the consumer group, from join to end. A later membership needs a new client. */
export interface GroupClient {
  /** Resolves after the first join. */
  join(events: GroupClientEvents): Promise<void>
  /** Commits under the current generation. Never rejoins. */
  commit(offsets: readonly OffsetToCommit[]): Promise<void>
  /** Whether the group has committed any offset in these topics, by name and number of partitions. */
  hasCommits(partitions: ReadonlyMap<string, number>): Promise<boolean>
  /** Leaves the group, within a second. */
  close(): Promise<void>
}

/**
 * Opens a separate client for the group. Its retries are off: with them a stale commit rejoins and
 * then succeeds under a generation that may have given the partition to another member.
 */
export function openGroupClient(config: GroupConfig, topics: readonly string[]): GroupClient {
  const client: Consumer<Buffer, Buffer, Buffer, Buffer> = new Consumer({
    ...clientOptions(config.kafka, config.clientId),
    groupId: config.groupId,
    groupProtocol: 'classic',
    sessionTimeout: config.sessionTimeoutMs,
    heartbeatInterval: config.heartbeatIntervalMs,
    rebalanceTimeout: config.rebalanceTimeoutMs,
    heartbeatStallTimeout: config.sessionTimeoutMs,
    autocommit: false,
    retries: 0,
  })
  guardConnections(client)
  return {
    async join(events) {
      client.on('error', (error: unknown) => events.onEnded(error))
      client.on('consumer:heartbeat:stalled', ({ lastError }) => {
        events.onEnded(lastError ?? new Error('No heartbeat was answered within the session timeout'))
      })
      client.on('client:close', () => events.onEnded(new Error('The client was closed')))
      client.on('consumer:group:rebalance', () => events.onRebalance())
      client.on('consumer:group:join', ({ generationId, assignments }) => {
        const ours = (assignments ?? []).flatMap(({ topic, partitions }) =>
          partitions.map((partition) => ({ topic, partition })),
        )
        events.onJoined(generationId ?? -1, ours)
      })
      for (const topic of topics) client.topics.track(topic)
      await client.joinGroup({})
    },
    async commit(offsets) {
      const withEpochs = offsets.map(({ topic, partition, nextOffset }) => {
        return { topic, partition, offset: BigInt(nextOffset), leaderEpoch: -1 }
      })
      await client.commit({ offsets: withEpochs })
    },
    async hasCommits(counts) {
      const asked = Array.from(counts, ([topic, count]) => ({ topic, partitions: [...Array(count).keys()] }))
      const committed = await client.listCommittedOffsets({ topics: asked })
      return [...committed.values()].flat().some((offset) => offset !== undefined && offset >= 0n)
    },
    close: () => closeClient(client, () => client.close(true)),
  }
}
