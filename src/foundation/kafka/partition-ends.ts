import { withinLimit } from '../runtime/limit.ts'
import type { FetchRequests, PartitionEnd } from './broker-requests.ts'
import { realBrokers } from './client-requests.ts'
import { type KafkaConnection, startingAt } from './connection.ts'

/** A broker that does not answer within this time hangs; the others must not wait longer for it. */
const REQUEST_MS = 3000

/**
 * Asks the leaders for the ends of their partitions. A partition without a leader, or with a
 * hanging broker, is missing in the result and does not affect others. After a failure it uses new
 * connections, starting with another bootstrap broker.
 *
 * It is a separate client, because a long poll would delay its requests on the same connection.
 */
export class PartitionEnds {
  readonly #open: () => FetchRequests
  readonly #topics: readonly string[]
  #requests: FetchRequests

  constructor(connection: KafkaConnection, clientId: string, topics: readonly string[], to = realBrokers()) {
    let connects = 0
    this.#open = () => to.openFetcher(startingAt(connection, connects++), clientId)
    this.#topics = topics
    this.#requests = this.#open()
  }

  /** @throws if no broker names the leaders */
  async read(): Promise<ReadonlyArray<PartitionEnd & { readonly topicId: string }>> {
    try {
      const requests = this.#requests
      const { topics } = await withinLimit(
        requests.metadata(this.#topics),
        REQUEST_MS,
        'No broker has named the leaders',
      )
      const places = [...topics].flatMap(([topic, { leaders }]) =>
        leaders.map((leader, partition) => ({ topic, partition, leader })),
      )
      const byLeader = [...Map.groupBy(places, ({ leader }) => leader)].filter(([leader]) => leader >= 0)
      const answers = await Promise.allSettled(
        byLeader.map(([leader, led]) =>
          withinLimit(
            requests.endOffsets(leader, led),
            REQUEST_MS,
            `Broker ${leader} has not named its offsets`,
          ),
        ),
      )
      if (answers.some(({ status }) => status === 'rejected')) await this.#reconnect()
      return answers.flatMap((answer) =>
        answer.status === 'rejected'
          ? []
          : answer.value.map((one) => ({ ...one, topicId: topics.get(one.topic)?.id ?? '' })),
      )
    } catch (error) {
      await this.#reconnect()
      throw error
    }
  }

  async close(): Promise<void> {
    await this.#requests.close()
  }

  async #reconnect(): Promise<void> {
    const left = this.#requests
    this.#requests = this.#open()
    // Its requests have failed, so errors while closing do not matter.
    await left.close().catch(() => {})
  }
}
