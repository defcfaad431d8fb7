import { TapelineError } from '../errors.ts'
import type { KafkaAccess, RecordFetcher } from '../kafka/access.ts'
import { parseCheckpoint } from './checkpoint.ts'

const LIMITS = { maxWaitMs: 100, minBytes: 1, maxBytes: 8 << 20 }

/** Nearly all records are not of a start; those are not parsed. */
const START = '"kind":"start"'

/**
 * Looks for a newer instance over the same symbols: two at once would double every bookTicker, which nothing can
 * tell apart afterwards. Later by offset in the checkpoints topic is newer, whatever the clocks say.
 */
export class InstanceWatch {
  readonly #fetcher: RecordFetcher
  readonly #topic: string
  readonly #instance: string
  readonly #symbols: ReadonlySet<string>
  readonly #positions: Map<number, number>
  /** Partitions in which our own start records have been read. */
  readonly #ownStartSeen = new Set<number>()

  /** @param ends where reading begins: the end of each partition before this instance wrote its start records */
  constructor(
    kafka: Pick<KafkaAccess, 'fetcher'>,
    topic: string,
    instance: string,
    symbols: readonly string[],
    ends: ReadonlyMap<number, number>,
  ) {
    this.#fetcher = kafka.fetcher('tapeline-ingestion-watch', [topic])
    this.#topic = topic
    this.#instance = instance
    this.#symbols = new Set(symbols)
    this.#positions = new Map(ends)
  }

  async connect(): Promise<void> {
    await this.#fetcher.connect()
  }

  /** @throws TapelineError `KAFKA` when another instance has started over one of our symbols after we did */
  async check(): Promise<void> {
    for (const { partition, end } of await this.#fetcher.offsetRanges()) {
      for (let offset = this.#positions.get(partition) ?? end; offset < end; ) {
        const node = this.#fetcher.leaderOf(this.#topic, partition) ?? 0
        const [fetched] = await this.#fetcher.fetch(node, [{ topic: this.#topic, partition, offset }], LIMITS)
        if (fetched?.error) throw new Error(`Partition ${partition} of ${this.#topic}: ${fetched.error}`)
        for (const { offset: at, record } of fetched?.records ?? []) {
          if (at >= offset) this.#look(partition, record.key?.toString() ?? '', record.value)
        }
        offset = fetched?.nextOffset ?? offset
        this.#positions.set(partition, offset)
        if (fetched?.nextOffset == null) break
      }
    }
  }

  async close(): Promise<void> {
    await this.#fetcher.close()
  }

  #look(partition: number, symbol: string, value: Buffer | null): void {
    if (!this.#symbols.has(symbol) || value === null || !value.includes(START)) return
    const { instance, kind } = parseCheckpoint(value.toString())
    if (kind !== 'start') return
    if (instance === this.#instance) this.#ownStartSeen.add(partition)
    else if (this.#ownStartSeen.has(partition)) this.#giveWay(instance, symbol)
  }

  #giveWay(instance: string, symbol: string): never {
    throw new TapelineError(
      'KAFKA',
      `Another ingestion (${instance}) has started over ${symbol}: this one stops`,
      {
        fix: 'Run one ingestion for a symbol; give each a share of the symbols with SHARD.',
      },
    )
  }
}
