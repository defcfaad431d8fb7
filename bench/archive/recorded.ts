import { createReadStream } from 'node:fs'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { createGunzip } from 'node:zlib'
import { compact } from '../../src/archive/compaction.ts'
import { duckDbCompaction } from '../../src/archive/day-merge.ts'
import { OpenSegments } from '../../src/archive/open-segments.ts'
import { SegmentWriter } from '../../src/archive/segment-writer.ts'
import { CommitChain } from '../../src/foundation/archive/commit-chain.ts'
import { newestDayList } from '../../src/foundation/archive/day-list.ts'
import { openDuckDb } from '../../src/foundation/archive/duckdb.ts'
import { openFolderStore } from '../../src/foundation/archive/folder-store.ts'
import { FetchedMessage } from '../../src/foundation/kafka/codec/record-batch.ts'
import type { TopicKind } from '../../src/foundation/kafka/message-decoder.ts'
import { systemClock } from '../../src/foundation/runtime/clock.ts'
import { fetched, TOPIC_ID } from '../../test/support/records.ts'
import type { Figures } from '../run.ts'

/** Recorded frames, next to the checkout: each line is a receipt time in nanoseconds and a frame. */
const RECORDINGS = resolve(import.meta.dirname, '../../../shared/data/binance')
const FILES = ['spot-btc-2024-08-08.raw.gz', 'spot-btc-eth-2024-08-09-midnight-60s.recvns.ndjson.gz']
const KINDS = {
  trade: 'trades',
  bookTicker: 'bookTicker',
  'depth@100ms': 'depth',
} as const satisfies Record<string, TopicKind>
const MEMORY_BYTES = 256 << 20

/** Archives and publishes recorded frames: bytes per row in the published files. */
export async function bytesOfRecordings(folder: string): Promise<Record<string, Figures>> {
  const figures: Record<string, Figures> = {}
  for (const name of FILES) {
    const url = join(folder, name)
    figures[`archive bytes, ${name}`] = await bytesOf(join(RECORDINGS, name), url)
  }
  return figures
}

async function bytesOf(recording: string, folder: string): Promise<Figures> {
  const store = openFolderStore(folder)
  await store.prepare()
  const engine = await openDuckDb({
    memoryBytes: MEMORY_BYTES,
    tempFolder: join(folder, 'temp'),
    threads: 2,
  })
  try {
    const duckDb = await engine.connect()
    const clock = systemClock()
    const messages = await messagesOf(recording)
    const open = new OpenSegments({
      kindOf: new Map(Object.values(KINDS).map((kind) => [kind, kind])),
      ...{ flushIntervalMs: 1000, sealBytes: MEMORY_BYTES, maxBytes: MEMORY_BYTES },
    })
    const owned = Object.values(KINDS).map(async (topic) => {
      const partition = { topic, topicId: TOPIC_ID, partition: 0 }
      return { ...partition, head: await new CommitChain(store, partition).begin({ firstOffset: 0, at: 0 }) }
    })
    open.assign(await Promise.all(owned))
    for (const topic of Object.values(KINDS)) open.accept(fetched(topic, 0, 0, messages[topic]), 0, 0)
    open.drain()
    for (let one = open.take(0); one !== null; one = open.take(0)) {
      await new SegmentWriter(one, store, duckDb, clock).write()
      open.committed(one)
    }
    const figures: Record<string, number> = {}
    const published = await compact(duckDbCompaction(store, duckDb, clock), () => true)
    for (const table of new Set(published.map((one) => one.table))) {
      let [rows, bytes] = [0, 0]
      for (const { date } of published.filter((one) => one.table === table)) {
        for (const file of (await newestDayList(store, table, date))?.files ?? []) {
          rows += file.rows
          bytes += file.bytes
        }
      }
      figures[`${table}, rows`] = rows
      figures[`${table}, bytes per row`] = bytes / rows
    }
    return figures
  } finally {
    engine.close()
  }
}

/** The recorded frames as ingestion's messages, by topic. */
async function messagesOf(recording: string): Promise<Record<TopicKind, FetchedMessage[]>> {
  const messages: Record<TopicKind, FetchedMessage[]> = {
    trades: [],
    bookTicker: [],
    depth: [],
    gaps: [],
    deadLetters: [],
  }
  for await (const line of createInterface({ input: createReadStream(recording).pipe(createGunzip()) })) {
    const space = line.indexOf(' ')
    const receiptUs = Math.floor(Number(line.slice(0, space)) / 1000)
    const { stream, data } = JSON.parse(line.slice(space + 1))
    const kind = Object.entries(KINDS).find(([name]) => stream?.endsWith(`@${name}`))?.[1]
    if (kind === undefined) continue
    const stamps = {
      ingestion_timestamp: Math.floor(receiptUs / 1000),
      ingestion_timestamp_us: receiptUs,
    }
    messages[kind].push(new FetchedMessage(0, null, [], Buffer.from(JSON.stringify({ ...data, ...stamps }))))
  }
  return messages
}
