import { HEADER } from '../../foundation/kafka/headers.ts'
import { partitionOf } from '../../foundation/kafka/partition.ts'
import type { OutgoingRecord, RecordSender } from '../../foundation/kafka/record-sender.ts'
import { schemaHeader } from '../../foundation/kafka/schema-of.ts'
import type { TimeUnit } from '../../foundation/market/time-unit.ts'
import type { ByteSlice } from '../../foundation/runtime/bytes.ts'
import type { DailyFile } from './daily-file.ts'
import type { DailyRows } from './daily-rows.ts'
import { TradeValues, VALUE_MAX_BYTES } from './trade-values.ts'

/** A send is one batch, which must stay below the brokers' limit of 1 MiB even uncompressed. */
const BATCH_ROWS = 4000
const BATCH_BYTES = 900_000
/** What a batch needs for a record besides its value: lengths, key and headers. */
const RECORD_BYTES = 64

/** How long a batch is retried. */
const LIMIT_MS = 60_000

/** A record of a batch, which the next one uses again. */
class Slot implements OutgoingRecord, ByteSlice {
  readonly topic: string
  readonly partition: number
  readonly key: Buffer
  readonly headers: ReadonlyMap<Buffer, Buffer>
  readonly value = null
  readonly bytes: Buffer
  timestampMs = 0
  start = 0
  end = 0

  constructor(
    stream: Pick<OutgoingRecord, 'topic' | 'partition' | 'headers'> & { key: Buffer },
    bytes: Buffer,
  ) {
    this.topic = stream.topic
    this.partition = stream.partition
    this.key = stream.key
    this.headers = stream.headers
    this.bytes = bytes
  }

  get slice(): ByteSlice {
    return this
  }
}

interface Batch {
  readonly bytes: Buffer
  readonly slots: Slot[]
  rows: number
  used: number
}

/** Publishes rows of one file in order. While one batch is on its way, the next is filled. */
export class TradePublisher {
  readonly #sender: Pick<RecordSender, 'send'>
  readonly #values: TradeValues
  readonly #stream: ConstructorParameters<typeof Slot>[0]
  readonly #wallMs: () => number
  #filling: Batch
  #sent: Batch
  #sending: Promise<void> = Promise.resolve()
  /** Rows that Kafka has. */
  acknowledged = 0

  /** @param unit of the deployment */
  constructor(
    sender: Pick<RecordSender, 'send'>,
    to: { readonly topic: string; readonly partitions: number; readonly wallMs: () => number },
    file: DailyFile,
    unit: TimeUnit,
    epoch: number,
  ) {
    this.#sender = sender
    this.#values = new TradeValues(file, unit)
    const headers = new Map([[Buffer.from(HEADER.schema), Buffer.from(schemaHeader(file.type, unit))]])
    if (epoch > 0) headers.set(Buffer.from(HEADER.epoch), Buffer.from(String(epoch)))
    const partition = partitionOf(file.symbol, to.partitions)
    this.#stream = { topic: to.topic, partition, key: Buffer.from(file.symbol), headers }
    this.#wallMs = to.wallMs
    this.#filling = emptyBatch()
    this.#sent = emptyBatch()
  }

  /** Adds the current row. @returns true if the batch is full: call {@link flush} */
  add(rows: DailyRows): boolean {
    const batch = this.#filling
    if (batch.rows === 0) this.#values.stamp(this.#wallMs())
    const slot = batch.slots[batch.rows] ?? new Slot(this.#stream, batch.bytes)
    batch.slots[batch.rows] = slot
    slot.start = batch.used - batch.rows * RECORD_BYTES
    slot.end = this.#values.write(rows, batch.bytes, slot.start)
    batch.rows++
    batch.used = slot.end + batch.rows * RECORD_BYTES
    return batch.rows === BATCH_ROWS || batch.used + VALUE_MAX_BYTES + RECORD_BYTES > BATCH_BYTES
  }

  /** Sends the batch once the one before is acknowledged. @throws what that one failed with */
  async flush(): Promise<void> {
    await this.#sending
    const batch = this.#filling
    if (batch.rows === 0) return
    const records = batch.slots.slice(0, batch.rows)
    const timestampMs = this.#wallMs()
    for (const slot of records) slot.timestampMs = timestampMs
    this.#sending = this.#sender.send(records, { limitMs: LIMIT_MS }).then(() => {
      this.acknowledged += records.length
      batch.rows = batch.used = 0
    })
    // It is awaited by the next call.
    this.#sending.catch(() => {})
    this.#filling = this.#sent
    this.#sent = batch
  }

  /** Sends the rest, and waits until Kafka has everything. */
  async finish(): Promise<void> {
    await this.flush()
    await this.#sending
  }
}

function emptyBatch(): Batch {
  return { bytes: Buffer.allocUnsafeSlow(BATCH_BYTES), slots: [], rows: 0, used: 0 }
}
