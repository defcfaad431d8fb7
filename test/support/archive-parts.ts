import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { compact, type Published } from '../../src/archive/compaction.ts'
import { duckDbCompaction } from '../../src/archive/day-merge.ts'
import { OpenSegments } from '../../src/archive/open-segments.ts'
import { SegmentWriter } from '../../src/archive/segment-writer.ts'
import { markArchive } from '../../src/foundation/archive/archive-mark.ts'
import { ArchiveReader } from '../../src/foundation/archive/archive-reader.ts'
import { CommitChain } from '../../src/foundation/archive/commit-chain.ts'
import { type DuckDb, openDuckDb } from '../../src/foundation/archive/duckdb.ts'
import { openFolderStore } from '../../src/foundation/archive/folder-store.ts'
import type { ObjectStore } from '../../src/foundation/archive/object-store.ts'
import type { FetchedMessage } from '../../src/foundation/kafka/codec/record-batch.ts'
import { systemClock } from '../../src/foundation/runtime/clock.ts'
import { fetched, TOPIC_ID } from './records.ts'

const KINDS = ['trades', 'bookTicker', 'depth', 'gaps', 'deadLetters'] as const
/** 2024-08-09 00:00 UTC. */
export const MIDNIGHT_MS = Date.UTC(2024, 7, 9)

/** An archive in a folder, without Kafka: messages are given, compaction is called. */
export interface ArchiveParts extends AsyncDisposable {
  readonly folder: string
  readonly store: ObjectStore
  readonly duckDb: DuckDb
  /** Hours by which its clock is slow. */
  hoursAgo: number
  /** Writes messages as one segment of a partition, by default 0, of a topic, which is named after its kind. */
  add(kind: (typeof KINDS)[number], messages: readonly FetchedMessage[], partition?: number): Promise<void>
  /** Publishes the days that are over: by default all. */
  publish(isOver?: (date: string) => boolean): Promise<Published[]>
  openReader(): Promise<ArchiveReader>
}

/** @param elsewhere its store; by default the folder */
export async function createArchive(source = 'simulated', elsewhere?: ObjectStore): Promise<ArchiveParts> {
  const folder = mkdtempSync(join(tmpdir(), 'tapeline-archive-'))
  const store = elsewhere ?? openFolderStore(folder)
  await store.prepare()
  await markArchive(store, { source, timeUnit: 'millisecond' })
  const engine = await openDuckDb({
    memoryBytes: 256 << 20,
    tempFolder: join(store.stagingFolder, 'engine'),
    threads: 1,
  })
  const duckDb = await engine.connect()
  const system = systemClock()
  const clock = { ...system, wallMicros: () => system.wallMicros() - parts.hoursAgo * 3_600_000_000 }
  const readers: ArchiveReader[] = []
  const parts: ArchiveParts = {
    folder,
    store,
    duckDb,
    hoursAgo: 0,
    async add(kind, messages, partition = 0) {
      const origin = { topic: kind, topicId: TOPIC_ID, partition }
      const chain = new CommitChain(store, origin)
      const head = (await chain.head()) ?? (await chain.begin({ firstOffset: 0, at: 0 }))
      const open = new OpenSegments({
        kindOf: new Map(KINDS.map((one) => [one, one])),
        ...{ flushIntervalMs: 1000, sealBytes: 1 << 30, maxBytes: 1 << 30 },
      })
      open.assign([{ ...origin, head }])
      assert.equal(open.accept(fetched(kind, partition, head.nextOffset, messages), 0, MIDNIGHT_MS), null)
      open.drain()
      const segment = open.take(0)
      assert.ok(segment !== null)
      assert.equal(await new SegmentWriter(segment, store, duckDb, clock).write(), true)
    },
    publish: (isOver = () => true) => compact(duckDbCompaction(store, duckDb, clock), isOver),
    async openReader() {
      const reader = await ArchiveReader.open({ url: folder, memoryBytes: 256 << 20, tempFolder: null })
      readers.push(reader)
      return reader
    },
    async [Symbol.asyncDispose]() {
      for (const reader of readers) await reader.close()
      engine.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
  return parts
}
