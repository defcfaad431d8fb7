import type { Gap } from '../market/gap.ts'
import type { KafkaConnection } from './config.ts'
import { HEADER } from './headers.ts'
import { partitionOf } from './partition.ts'
import { type OutgoingRecord, RecordSender } from './record-sender.ts'
import { schemaHeader } from './schema-of.ts'

/** Maximum rows per send, which keeps it below the brokers' limit of 1 MiB. */
const ROWS_PER_SEND = 500

/**
 * Returns the message of a ledger row.
 * @param instance its writer; null for a request to reopen the gap, and for an import
 */
export function gapRecord(
  gap: Gap,
  topic: string,
  partitions: number,
  instance: string | null,
): OutgoingRecord & { readonly value: Buffer } {
  const headers = new Map([[Buffer.from(HEADER.schema), Buffer.from(schemaHeader('gap', 'millisecond'))]])
  if (instance !== null) headers.set(Buffer.from(HEADER.instance), Buffer.from(instance))
  return {
    topic,
    partition: partitionOf(gap.symbol, partitions),
    key: Buffer.from(gap.gap_id),
    value: Buffer.from(JSON.stringify(gap)),
    headers,
    timestampMs: gap.updated_at,
  }
}

/**
 * Sends ledger rows that name no instance: requests to reopen gaps, and gaps that an import closes.
 * @throws after 30 s or on abort; some may have been written by then
 */
export async function sendGapRows(
  connection: KafkaConnection,
  topic: string,
  gaps: readonly Gap[],
  signal?: AbortSignal,
): Promise<void> {
  if (gaps.length === 0) return
  signal?.throwIfAborted()
  const sender = new RecordSender(connection, 'tapeline-gap-rows', 'lz4')
  const close = () => void sender.close()
  signal?.addEventListener('abort', close, { once: true })
  try {
    const partitions = (await sender.topics([topic])).get(topic)?.partitions ?? 1
    const records = gaps.map((gap) => gapRecord(gap, topic, partitions, null))
    for (let at = 0; at < records.length; at += ROWS_PER_SEND)
      await sender.send(records.slice(at, at + ROWS_PER_SEND))
  } finally {
    signal?.removeEventListener('abort', close)
    await sender.close()
  }
}
