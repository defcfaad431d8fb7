import { createRecordsBatch, type MessageRecord, NumericMap } from '@platformatic/kafka'
import { FETCH_VERSIONS, type FetchApi, OWN_FETCH_APIS } from './fetch-api.ts'
import { type BatchOptions, type ProducedRecord, RecordWriter } from './record-writer.ts'

/** Writes the batches of one sender. */
export interface BatchWriter {
  /**
   * @param firstSequence of the producer in this partition; 0 without idempotence
   * @returns a batch of format 2 that the caller owns
   * @throws UnsupportedCompressionError
   */
  batch(records: readonly ProducedRecord[], firstSequence: number, options: BatchOptions): Buffer
}

export interface RecordCodec {
  writer(): BatchWriter
  /** Newest first. */
  readonly fetchApis: readonly FetchApi[]
}

export const CODECS = {
  own: {
    writer: () => new RecordWriter(),
    fetchApis: OWN_FETCH_APIS,
  },
  client: {
    writer: () => ({ batch: clientBatch }),
    fetchApis: FETCH_VERSIONS.map(({ api }) => api),
  },
} satisfies Record<string, RecordCodec>

/**
 * The codec of producers and fetchers. With the one of `@platformatic/kafka` 2.12, which makes a
 * dozen objects per message, both services take 1.72 times the processor time flat out
 * (docs/bench.md). Remove ours once a later version takes less than 1.1 times as much, and verifies
 * checksums.
 */
export const CODEC: RecordCodec = CODECS.own

function clientBatch(
  records: readonly ProducedRecord[],
  firstSequence: number,
  options: BatchOptions,
): Buffer {
  const [topic, partition] = ['', 0]
  const first = records[0]?.timestampMs
  const messages = records.map(({ key, value, slice, headers, timestamp, timestampMs = first }) => {
    const record: MessageRecord = { topic, partition, value: Buffer.alloc(0) }
    // The client's type does not allow null, but its encoder does.
    return Object.assign(record, {
      key,
      value: slice?.bytes.subarray(slice.start, slice.end) ?? value,
      headers: new Map(headers),
      timestamp: timestampMs === undefined ? timestamp : BigInt(timestampMs),
    })
  })
  const sequences = new NumericMap([[`${topic}:${partition}`, firstSequence]])
  return Buffer.from(createRecordsBatch(messages, { ...options, sequences }).buffer)
}
