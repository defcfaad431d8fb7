import {
  type Announced,
  type ArchivedDay,
  archivedDayKey,
  archivedDayRecord,
  confirmationRecord,
  readAnnounced,
} from '../foundation/archive/archived-days.ts'
import { CommitChain, chainPath, chainsOf } from '../foundation/archive/commit-chain.ts'
import { type DayList, newestDayList, publishedDates } from '../foundation/archive/day-list.ts'
import type { DuckDb } from '../foundation/archive/duckdb.ts'
import { LocalCopies } from '../foundation/archive/local-copies.ts'
import { localFiles } from '../foundation/archive/local-files.ts'
import type { ObjectStore } from '../foundation/archive/object-store.ts'
import { rowHash } from '../foundation/archive/row-hash.ts'
import { DAY_TABLES } from '../foundation/archive/tables.ts'
import type { KafkaConnection } from '../foundation/kafka/config.ts'
import { PartitionFetcher } from '../foundation/kafka/partition-fetcher.ts'
import { RecordSender } from '../foundation/kafka/record-sender.ts'
import { type Clock, wallMs } from '../foundation/runtime/clock.ts'
import { TapelineError } from '../foundation/runtime/errors.ts'
import { plural } from '../foundation/telemetry/plural.ts'

const DAY_MS = 86_400_000

export interface AnnouncerOptions {
  readonly kafka: KafkaConnection
  readonly topic: string
  /** Age at which the consumer wants to drop a day. Its files are read again then. */
  readonly retentionDays: number
}

export interface AnnouncerPorts {
  readonly store: ObjectStore
  readonly duckDb: DuckDb
  readonly clock: Pick<Clock, 'wallMicros'>
}

/** What was announced of a day. */
type Known = Pick<ArchivedDay, 'table' | 'date' | 'list' | 'highestList' | 'publishedAt' | 'checkedAt'>

/** Where the chains end at a moment, by their paths. */
export interface ChainEnds {
  readonly at: number
  readonly ends: Readonly<Record<string, number>>
}

/** Announces published days in the compacted topic, from which the consumer learns what it may drop. */
export class Announcer {
  readonly #options: AnnouncerOptions
  readonly #ports: AnnouncerPorts

  constructor(options: AnnouncerOptions, ports: AnnouncerPorts) {
    this.#options = options
    this.#ports = ports
  }

  /** Reads where the chains end, which must be before a compaction begins: it merges all before that. */
  async readEnds(): Promise<ChainEnds> {
    const { store, clock } = this.#ports
    const at = wallMs(clock)
    const ends: Record<string, number> = {}
    for (const partition of await chainsOf(store)) {
      const head = await new CommitChain(store, partition).head()
      if (head !== null) ends[chainPath(partition)] = head.nextOffset
    }
    return { at, ends }
  }

  /**
   * Announces each day whose newest list was not announced, or that is due and was last read before.
   * Then it confirms that everything announced is there.
   *
   * @throws TapelineError `ARCHIVE` if files are missing or altered; then nothing is confirmed
   */
  async announce(ends: ChainEnds): Promise<void> {
    const { kafka, topic } = this.#options
    const fetcher = new PartitionFetcher(kafka, 'tapeline-archive-announced', [topic])
    const { days } = await readAnnounced<Known>(
      fetcher,
      topic,
      ({ table, date, list, highestList, publishedAt, checkedAt }) => ({
        ...{ table, date, list, highestList, publishedAt, checkedAt },
      }),
    )
    const sender = new RecordSender(kafka, 'tapeline-archive-announcer', 'lz4')
    try {
      const damaged = await this.#announceDays(days, (day) => sender.send([archivedDayRecord(topic, day)]))
      if (damaged.length > 0)
        throw new TapelineError(
          'ARCHIVE',
          `${plural(damaged.length, 'published day')} cannot be confirmed: ${damaged.join('; ')}`,
          {
            fix: 'Restore the files from a copy of the archive. Until then the consumer drops nothing from the tables.',
          },
        )
      await sender.send([confirmationRecord(topic, ends)])
    } finally {
      await sender.close()
    }
  }

  /** @returns what is missing or altered */
  async #announceDays(
    known: Announced<Known>['days'],
    send: (day: ArchivedDay) => Promise<void>,
  ): Promise<string[]> {
    const damaged: string[] = []
    const present = new Set<string>()
    for (const table of DAY_TABLES.keys()) {
      for (const date of await publishedDates(this.#ports.store, table)) {
        const list = await newestDayList(this.#ports.store, table, date)
        if (list === null) continue
        const before = known.get(archivedDayKey(list))
        present.add(archivedDayKey(list))
        const isKnown = before !== undefined && this.#isKnown(list, before)
        const problem = await this.#problemOf(list, isKnown)
        if (problem !== null) damaged.push(problem)
        else if (!isKnown) await send(await this.#read(list, before?.highestList ?? 0))
      }
    }
    for (const [key, { table, date, list, highestList }] of known) {
      if (list === 0 || present.has(key)) continue
      const nothing = { list: 0, publishedAt: 0, rows: 0, hash: '0', through: {}, symbols: {} }
      await send({ table, date, ...nothing, highestList, checkedAt: wallMs(this.#ports.clock) })
    }
    return damaged
  }

  /** Whether this list was announced, and read since the day is old enough. */
  #isKnown({ number, publishedAt, date }: DayList, before: Known): boolean {
    const isSame = before.list === number && before.publishedAt === publishedAt
    // A time that is still to come was read from a wrong clock.
    return isSame && before.checkedAt >= this.#dueAt(date) && before.checkedAt <= wallMs(this.#ports.clock)
  }

  /** When a day is old enough to be dropped; before the first day while it is not. */
  #dueAt(date: string): number {
    const dueMs = Date.parse(date) + DAY_MS * (1 + this.#options.retentionDays)
    return dueMs <= wallMs(this.#ports.clock) ? dueMs : 0
  }

  /** Checks that the files are there; unless that was done before, also that they are unaltered. */
  async #problemOf({ table, date, files }: DayList, isKnown: boolean): Promise<string | null> {
    const { store } = this.#ports
    const there = new Set(await store.list(`${table}/date=${date}`))
    for (const { key, bytes, sha256 } of files) {
      if (!there.has(key)) return `${key} is missing`
      if (isKnown) continue
      const path = await store.localCopy(key, 'fresh')
      try {
        const content = await localFiles.hash(path)
        if (content.bytes !== bytes || content.sha256 !== sha256) return `${key} was altered`
      } finally {
        await store.release([path])
      }
    }
    return null
  }

  async #read(list: DayList, announced: number): Promise<ArchivedDay> {
    const { store, duckDb, clock } = this.#ports
    const { table, date, number, publishedAt, files, through } = list
    const columns = DAY_TABLES.get(table)
    if (columns === undefined) throw new Error(`The archive has no table ${table}`)
    const checkedAt = wallMs(clock)
    await using copies = new LocalCopies(store)
    await copies.add(files)
    const figures = await duckDb.rows<{ symbol: string; rows: bigint; hash: string }>(
      `SELECT symbol, count(*) AS rows, sum(${rowHash('duckDb', columns)})::VARCHAR AS hash
       FROM ${copies.read(files)} GROUP BY symbol ORDER BY symbol`,
    )
    return {
      ...{ table, date, list: number, publishedAt, checkedAt, through },
      highestList: Math.max(number, announced),
      rows: figures.reduce((sum, { rows }) => sum + Number(rows), 0),
      hash: String(figures.reduce((sum, { hash }) => sum + BigInt(hash), 0n)),
      symbols: Object.fromEntries(figures.map(({ symbol, rows, hash }) => [symbol, [Number(rows), hash]])),
    }
  }
}
