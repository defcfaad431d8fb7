import type { KafkaPort, RecordFetcher } from '../foundation/kafka/kafka-port.ts'
import type { TopicMetadata } from '../foundation/kafka/topic-metadata.ts'
import { describeError, isTapelineError, TapelineError } from '../foundation/runtime/errors.ts'
import type { Logger } from '../foundation/telemetry/log.ts'

const CLIENT_ID = 'tapeline-ingestion-topics'

export interface TopicWatchEvents {
  /** Called when a topic was deleted and recreated; its id here is already the new one. */
  onRecreated(topic: string): void
  /** Called when its number of partitions has changed: messages were assigned to the old ones. */
  onFatal(error: TapelineError): void
}

/** Checks that the topics exist and are still the ones this process knows. Specification: C8. */
export class TopicWatch {
  readonly #kafka: Pick<KafkaPort, 'fetcher'>
  readonly #fetcher: RecordFetcher
  readonly #known: Map<string, TopicMetadata>
  /** Ids of deleted topics. A broker with stale metadata still names them. */
  readonly #deletedIds = new Set<string>()
  readonly #events: TopicWatchEvents
  readonly #log: Logger
  #missing: readonly string[] = []
  #checking: Promise<boolean> | null = null

  /** @param topics as they were at recovery */
  constructor(
    kafka: Pick<KafkaPort, 'fetcher'>,
    topics: ReadonlyMap<string, TopicMetadata>,
    events: TopicWatchEvents,
    log: Logger,
  ) {
    this.#kafka = kafka
    this.#known = new Map(topics)
    this.#fetcher = kafka.fetcher(CLIENT_ID, [...topics.keys()])
    this.#events = events
    this.#log = log
  }

  /** Kafka's id of the topic; empty for one that is not watched. */
  idOf(topic: string): string {
    return this.#known.get(topic)?.id ?? ''
  }

  /** Names the missing topics; empty when none is missing. */
  get problem(): string {
    if (this.#missing.length === 0) return ''
    return `Missing on the broker: ${this.#missing.join(', ')}. Create the topics with: bin/tapeline topics init`
  }

  /** @returns whether the brokers answered, and every topic is there */
  check(): Promise<boolean> {
    this.#checking ??= this.#check().finally(() => {
      this.#checking = null
    })
    return this.#checking
  }

  close(): Promise<void> {
    return this.#fetcher.close()
  }

  async #check(): Promise<boolean> {
    try {
      this.#take(await this.#fetcher.connect())
      this.#setMissing([])
      return true
    } catch (error) {
      if (isTapelineError(error)) return this.#checkEach()
      this.#log.debug({ err: error }, `Cannot check the topics now: ${describeError(error)}`)
      return false
    }
  }

  /** One request names all topics, but a failed answer does not say which one is missing. */
  async #checkEach(): Promise<boolean> {
    const missing: string[] = []
    for (const topic of this.#known.keys()) {
      const fetcher = this.#kafka.fetcher(CLIENT_ID, [topic])
      try {
        this.#take(await fetcher.connect())
      } catch (error) {
        if (isTapelineError(error)) missing.push(topic)
        else this.#log.debug({ err: error, topic }, `Cannot check a topic now: ${describeError(error)}`)
      } finally {
        await fetcher.close()
      }
    }
    this.#setMissing(missing)
    return false
  }

  #setMissing(missing: readonly string[]): void {
    const isNew = missing.some((topic) => !this.#missing.includes(topic))
    this.#missing = missing
    if (isNew) this.#log.error({ missing }, this.problem)
  }

  #take(found: ReadonlyMap<string, TopicMetadata>): void {
    for (const [topic, { id, partitions }] of found) {
      const known = this.#known.get(topic)
      if (known === undefined || known.id === id || this.#deletedIds.has(id)) continue
      if (known.partitions !== partitions) {
        const text = `Topic ${topic} was deleted and recreated with ${partitions} instead of ${known.partitions} partitions`
        const fix = 'Restart ingestion (its supervisor does): it assigns the messages to the new partitions.'
        this.#events.onFatal(new TapelineError('KAFKA', text, { fix }))
        return
      }
      this.#deletedIds.add(known.id)
      this.#known.set(topic, { id, partitions })
      this.#log.warn(
        { topic, topicId: id },
        `Topic ${topic} was deleted and recreated; recording continues in it`,
      )
      this.#events.onRecreated(topic)
    }
  }
}
