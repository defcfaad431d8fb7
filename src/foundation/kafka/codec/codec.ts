import { createRecordsBatch, type MessageRecord, NumericMap } from '@platformatic/kafka'
import { FETCH_VERSIONS, type FetchApi, OWN_FETCH_APIS } from './fetch-api.ts'
import { type BatchOptions, type ProducedRecord, RecordWriter } from './record-writer.ts'

export interface RecordCodec {
  /** Returns what writes the batches of one sender. */
  writer(): Pick<RecordWriter, 'batch'>
  /** Newest first. */
  readonly fetchApis: readonly FetchApi[]
}

export const CODECS: Readonly<Record<'own' | 'client', RecordCodec>> = {
  own: { writer: () => new RecordWriter(), fetchApis: OWN_FETCH_APIS },
  client: {
    writer: () => ({ batch: clientBatch }),
    fetchApis: FETCH_VERSIONS.map(({ api }) => api),
  },
}

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
  { timestampMs: renewedMs, ...options }: BatchOptions,
): Buffer {
  const [topic, partition] = ['', 0]
  const messages = records.map(({ key, value, slice, headers, timestampMs }) => {
    const record: MessageRecord = { topic, partition, value: Buffer.alloc(0) }
    // The client's type does not allow null, but its encoder does.
    return Object.assign(record, {
      key,
      value: slice?.bytes.subarray(slice.start, slice.end) ?? value,
      headers: new Map(headers),
      timestamp: BigInt(renewedMs ?? timestampMs),
    })
  })
  const sequences = new NumericMap([[`${topic}:${partition}`, firstSequence]])
  return Buffer.from(createRecordsBatch(messages, { ...options, sequences }).buffer)
}
