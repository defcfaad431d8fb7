import { Consumer, FetchIsolationLevels } from '@platformatic/kafka'
import { clientOptions } from '../src/foundation/kafka/client.ts'
import { clusterLayout } from '../src/foundation/kafka/topic-metadata.ts'
import type { Pipeline } from './pipeline.ts'
import type { Place } from './place.ts'
import { type Latency, latencyOf, PERCENTILES } from './rows.ts'

/**
 * Latencies of the messages appended since a moment, by the broker's timestamps (`LogAppendTime`).
 */
export interface AppendedMessages {
  readonly eventToReceipt: Latency
  readonly receiptToAppend: Latency
}

const FETCH_BYTES = 8 << 20
const EVENT_TIME = /"E": ?(\d{13})(\d{3})?/
const RECEIPT_MS = /"ingestion_timestamp": ?(\d{13})/
const RECEIPT_US = /"ingestion_timestamp_us": ?(\d{16})/

/** Reads both topics to their ends. */
export async function appendedSince(
  place: Place,
  { topics }: Pipeline,
  sinceUs: number,
): Promise<AppendedMessages> {
  const eventToReceipt: number[] = []
  const receiptToAppend: number[] = []
  for await (const { text, appendedMs } of appended(place, topics)) {
    const receiptUs = Number(RECEIPT_US.exec(text)?.[1] ?? Number(RECEIPT_MS.exec(text)?.[1]) * 1000)
    if (!(receiptUs >= sinceUs)) continue
    receiptToAppend.push(appendedMs - receiptUs / 1000)
    const [, eventMs, micros = 0] = EVENT_TIME.exec(text) ?? []
    if (eventMs !== undefined)
      eventToReceipt.push(receiptUs / 1000 - (Number(eventMs) + Number(micros) / 1000))
  }
  return { eventToReceipt: latencyIn(eventToReceipt), receiptToAppend: latencyIn(receiptToAppend) }
}

async function* appended(
  place: Place,
  names: readonly string[],
): AsyncGenerator<{ text: string; appendedMs: number }> {
  const client = new Consumer({
    ...clientOptions({ brokers: [place.brokers], tls: null, sasl: null }, 'tapeline-bench'),
    groupId: 'tapeline-bench-unused',
    groupProtocol: 'classic',
    autocommit: false,
  })
  try {
    for (const name of names) client.topics.track(name)
    const { topics } = await clusterLayout(client, [place.brokers], names)
    const ends = await client.listOffsets({ topics: [...names], timestamp: -1n })
    for (const [name, { id, leaders }] of topics) {
      for (const [partition, end] of (ends.get(name) ?? []).entries()) {
        const node = leaders[partition] ?? 0
        for (let offset = 0n; offset < end; ) {
          const wanted = { partition, currentLeaderEpoch: -1, fetchOffset: offset, lastFetchedEpoch: -1 }
          const answer = await client.fetch({
            node,
            topics: [{ topicId: id, partitions: [{ ...wanted, partitionMaxBytes: FETCH_BYTES }] }],
            minBytes: 1,
            maxBytes: FETCH_BYTES,
            maxWaitTime: 500,
            isolationLevel: FetchIsolationLevels.READ_UNCOMMITTED,
          })
          for (const batch of answer.responses[0]?.partitions[0]?.records ?? []) {
            // With LogAppendTime this field holds the broker's time, for the whole batch.
            const appendedMs = Number(batch.maxTimestamp)
            for (const { value } of batch.records) yield { text: value?.toString() ?? '', appendedMs }
            offset = batch.firstOffset + BigInt(batch.lastOffsetDelta) + 1n
          }
        }
      }
    }
  } finally {
    await client.close(true)
  }
}

function latencyIn(values: number[]): Latency {
  const sorted = Float64Array.from(values).sort()
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)]
  return latencyOf(sorted.length === 0 ? [] : PERCENTILES.map((share) => at(share) ?? Number.NaN))
}
