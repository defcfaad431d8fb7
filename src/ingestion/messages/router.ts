import type { TopicNames } from '../../foundation/kafka/config.ts'
import { HEADER } from '../../foundation/kafka/headers.ts'
import { partitionOf } from '../../foundation/kafka/partition-map.ts'
import { schemaHeader } from '../../foundation/kafka/schema-of.ts'
import type { TopicMetadata } from '../../foundation/kafka/topic-metadata.ts'
import { declarationOf, type EventType } from '../../foundation/market/event.ts'
import type { Gap } from '../../foundation/market/gap.ts'
import type { TimeUnit } from '../../foundation/market/time-unit.ts'

/** Destination and headers of a message; shared by all messages of a symbol and type. */
export interface Route {
  readonly symbol: string
  readonly type: EventType
  readonly topic: string
  readonly partition: number
  readonly key: Buffer
  readonly headers: Map<Buffer, Buffer>
  readonly epoch: number
}

/**
 * Routes by event type to a topic, and by Java's murmur2 of the symbol to a partition; computed
 * once per symbol and type.
 *
 * @param topics the partition counts at start. After a change of the count, restart the service;
 *   order per symbol does not hold across the change
 */
export class Router {
  readonly #names: TopicNames
  readonly #topics: ReadonlyMap<string, TopicMetadata>
  readonly #unit: TimeUnit
  readonly #routes = new Map<string, Route>()

  constructor(names: TopicNames, topics: ReadonlyMap<string, TopicMetadata>, unit: TimeUnit) {
    this.#unit = unit
    this.#names = names
    this.#topics = topics
  }

  /**
   * @param stream the stream's name, which identifies symbol and type
   * @param epoch how often its ids have restarted
   */
  route(stream: string, symbol: string, type: EventType, epoch: number): Route {
    const known = this.#routes.get(stream)
    if (known?.epoch === epoch) return known
    const topic = this.#names[declarationOf(type).topic]
    const partitions = this.#topics.get(topic)?.partitions
    if (partitions === undefined) throw new Error(`No partition count of topic ${topic}`)
    const route = {
      symbol,
      type,
      topic,
      partition: partitionOf(symbol, partitions),
      key: Buffer.from(symbol),
      headers: headersOf(type, this.#unit, epoch),
      epoch,
    }
    this.#routes.set(stream, route)
    return route
  }
}

/** Returns the route for a quote that ends an outage, during which the clock may have been set. */
export function routeAfter(outage: Gap, clockAheadMs: number | undefined, route: Route): Route {
  const headers = new Map(route.headers)
  headers.set(Buffer.from(HEADER.outage), Buffer.from(JSON.stringify(outage)))
  headers.set(Buffer.from(HEADER.clockAhead), Buffer.from(String(clockAheadMs ?? '')))
  return { ...route, headers }
}

function headersOf(type: EventType, unit: TimeUnit, epoch: number): Map<Buffer, Buffer> {
  const headers = new Map([[Buffer.from(HEADER.schema), Buffer.from(schemaHeader(type, unit))]])
  if (epoch > 0) headers.set(Buffer.from(HEADER.epoch), Buffer.from(String(epoch)))
  return headers
}
