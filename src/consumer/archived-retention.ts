import {
  archiveTablesOf,
  countChunk,
  dayRows,
  daysOf,
  dropArchivedChunk,
  droppedRows,
  type OldChunk,
  oldChunks,
  type SymbolRows,
  tryChunkLock,
} from '../foundation/archive/archived-chunks.ts'
import {
  type Announced,
  type ArchivedDay,
  archivedDayKey,
  type Confirmation,
  readAnnounced,
} from '../foundation/archive/archived-days.ts'
import { chainPath } from '../foundation/archive/commit-chain.ts'
import type { KafkaConnection } from '../foundation/kafka/config.ts'
import { PartitionFetcher } from '../foundation/kafka/partition-fetcher.ts'
import { type Clock, wallMs } from '../foundation/runtime/clock.ts'
import { readOffsets } from '../foundation/store/consumer-offsets.ts'
import type { Queryable } from '../foundation/store/database.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { ServicePorts } from '../foundation/telemetry/service.ts'
import { compareDays, describeDifference, type SymbolDifference } from './day-comparison.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

/** The archive confirms every hour what it has; compaction of a large day may take longer. */
const CONFIRMED_MS = 6 * HOUR_MS

/** A day that differs is read again after this time, or when the archive announces it again. */
const COMPARE_AGAIN_MS = DAY_MS

const SHOWN = 20

/** Reads what the archive has announced of the wanted days, by their keys, and of restored ones. */
type ReadAnnounced = (isWanted: (key: string) => boolean) => Promise<Announced<ArchivedDay>>

/** Runs a transaction with a longer limit than a batch. */
export type Unhurried = <Result>(step: string, work: (on: Queryable) => Promise<Result>) => Promise<Result>

/** Why a chunk past `RETENTION_DAYS` stays. */
type Obstacle =
  | { readonly kind: 'waiting'; readonly why: string }
  | { readonly kind: 'differs'; readonly differences: readonly SymbolDifference[] }

/** What became of a chunk; null: it was dropped, or another consumer is at work. */
type Outcome = Obstacle | 'dropped' | 'busy'

/** A comparison that found differences. */
interface Compared {
  /** The lists that it was about. */
  readonly lists: string
  readonly atMs: number
  /** What the tables had of Kafka then, by the path of a chain. */
  readonly offsets: ReadonlyMap<string, number>
  readonly differences: readonly SymbolDifference[]
}

/** Chunks past `RETENTION_DAYS` that stay, by table of the database. */
export interface KeptChunks {
  readonly waiting: Readonly<Record<OldChunk['table'], number>>
  readonly differing: Readonly<Record<OldChunk['table'], number>>
}

const NONE = { trades: 0, book_ticker: 0, depth_updates: 0, depth_snapshots: 0 }

export const NOTHING_KEPT: KeptChunks = { waiting: NONE, differing: NONE }

/**
 * Drops chunks past `RETENTION_DAYS` whose days the archive has with the same rows; all others stay.
 * Comparing reads the chunk and blocks nobody. Only then is the chunk locked, to count its rows
 * again and to drop it in the same transaction.
 */
export class ArchivedRetention {
  readonly #readAnnounced: ReadAnnounced
  readonly #clock: Pick<Clock, 'wallMicros'>
  readonly #log: Logger
  readonly #compared = new Map<string, Compared>()
  /** The obstacles that were logged, by chunk. */
  readonly #said = new Map<string, string>()
  kept = NOTHING_KEPT

  constructor(readAnnounced: ReadAnnounced, clock: Pick<Clock, 'wallMicros'>, log: Logger) {
    this.#readAnnounced = readAnnounced
    this.#clock = clock
    this.#log = log
  }

  /** @throws what reading the topic or the database throws; what was dropped before stays dropped */
  async drop(unhurried: Unhurried, keepDays: number): Promise<void> {
    const chunks = await unhurried('Listing old chunks', (on) => oldChunks(on, keepDays))
    const keys = new Set(chunks.flatMap(keysOf))
    let waiting = { ...NOTHING_KEPT.waiting }
    const differing = { ...NOTHING_KEPT.differing }
    for (const { table } of chunks) waiting[table]++
    try {
      if (chunks.length === 0) return
      const announced = await this.#readAnnounced((key) => keys.has(key))
      for (const chunk of chunks) {
        const outcome = await this.#dropOne(unhurried, chunk, announced, keepDays)
        if (outcome === 'busy') {
          // The other consumer reports what it finds.
          waiting = { ...NOTHING_KEPT.waiting }
          return
        }
        if (outcome === 'dropped' || outcome.kind === 'differs') waiting[chunk.table]--
        if (outcome === 'dropped') continue
        if (outcome.kind === 'differs') differing[chunk.table]++
        this.#say(chunk, outcome)
      }
    } finally {
      this.kept = { waiting, differing }
      const present = new Set(chunks.map(nameOf))
      for (const known of [this.#compared, this.#said])
        for (const name of known.keys()) if (!present.has(name)) known.delete(name)
    }
  }

  async #dropOne(
    unhurried: Unhurried,
    chunk: OldChunk,
    { confirmation, days }: Announced<ArchivedDay>,
    keepDays: number,
  ): Promise<Outcome> {
    const dates = daysOf(chunk)
    if (dates === null) return waiting(`the chunk ${nameOf(chunk)} does not consist of whole UTC days`)
    const nowMs = wallMs(this.#clock)
    if (confirmation === null) return waiting('the archive has confirmed nothing yet')
    // One of a later time comes from a wrong clock.
    if (Math.abs(nowMs - confirmation.at) > CONFIRMED_MS)
      return waiting(`the archive last confirmed its files at ${new Date(confirmation.at).toISOString()}`)
    const restored = days.values().find(isRestored)
    if (restored !== undefined)
      return waiting(
        `the archive has list ${restored.list} of ${archivedDayKey(restored)}, but announced list ${restored.highestList} before: it was restored from an older copy`,
      )
    const announced = keysOf(chunk).flatMap((key) => days.get(key) ?? [])
    const unnamed = dates.find((date) => !announced.some((day) => day.date === date))
    if (unnamed !== undefined)
      return waiting(`the archive has announced nothing of ${chunk.table} ${unnamed}`)
    const dueMs = chunk.end.getTime() + keepDays * DAY_MS
    const unchecked = announced.find(({ checkedAt }) => checkedAt < dueMs || checkedAt > nowMs + CONFIRMED_MS)
    if (unchecked !== undefined)
      return waiting(
        `the archive has not read its files of ${archivedDayKey(unchecked)} since the day was past RETENTION_DAYS`,
      )
    const lists = announced.map((day) => `${archivedDayKey(day)} ${day.list} ${day.hash}`).join()
    const before = this.#compared.get(nameOf(chunk))
    if (before?.lists === lists && nowMs - before.atMs < COMPARE_AGAIN_MS)
      return reported(before, confirmation)
    return unhurried(`Comparing ${nameOf(chunk)} with the archive`, async (on) => {
      if (!(await tryChunkLock(on))) return 'busy'
      const counted = await countChunk(on, chunk)
      const stored: SymbolRows[] = []
      const dropped: SymbolRows[] = []
      for (const date of dates) {
        stored.push(...(await dayRows(on, chunk.table, date)))
        dropped.push(...(await droppedRows(on, archiveTablesOf(chunk.table), date)))
      }
      // After the rows: it must not be less than they are.
      const offsets = await offsetsOf(on)
      const unread = [...offsets].find(([chain, next]) => next > 0 && !(chain in confirmation.ends))
      if (unread !== undefined) return waiting(`the archive has not read ${unread[0]}`)
      const differences = compareDays([...stored, ...dropped], announced)
      if (differences.length > 0) {
        const compared = { lists, atMs: nowMs, offsets, differences }
        this.#compared.set(nameOf(chunk), compared)
        return reported(compared, confirmation)
      }
      if (!(await dropArchivedChunk(on, chunk, counted, stored)))
        return waiting(`rows were stored in ${nameOf(chunk)} while it was compared`)
      const what = {
        table: chunk.table,
        from: chunk.start.toISOString(),
        to: chunk.end.toISOString(),
        rows: counted,
      }
      this.#log.info(what, 'Rows past RETENTION_DAYS were dropped: the archive has them')
      return 'dropped'
    })
  }

  /** Logs an obstacle when it is new. */
  #say(chunk: OldChunk, obstacle: Obstacle): void {
    const name = nameOf(chunk)
    const lines = obstacle.kind === 'differs' ? obstacle.differences.map(describeDifference) : [obstacle.why]
    const text = `${obstacle.kind} ${lines.join()}`
    if (this.#said.get(name) === text) return
    this.#said.set(name, text)
    if (obstacle.kind === 'waiting') {
      this.#log.info({ chunk: name }, `Rows past RETENTION_DAYS stay: ${obstacle.why}`)
      return
    }
    const details = { chunk: name, symbols: lines.length, differences: lines.slice(0, SHOWN) }
    this.#log.error(
      details,
      `Rows past RETENTION_DAYS stay: the archive and the tables differ in ${lines[0]}${lines.length > 1 ? ', …' : ''}`,
    )
  }
}

/** Retention that learns from a topic what the archive has. */
export function archivedRetention(
  kafka: KafkaConnection,
  topic: string,
  { clock, log }: Pick<ServicePorts, 'clock' | 'log'>,
): ArchivedRetention {
  const read: ReadAnnounced = (isWanted) => {
    const fetcher = new PartitionFetcher(kafka, 'tapeline-consumer-archived-days', [topic])
    return readAnnounced(fetcher, topic, (day) =>
      isWanted(archivedDayKey(day)) || isRestored(day) ? day : null,
    )
  }
  return new ArchivedRetention(read, clock, log)
}

/** Whether an archive of an earlier time is in place of the one that announced the day. */
function isRestored({ list, highestList }: ArchivedDay): boolean {
  return list < highestList
}

function waiting(why: string): Obstacle {
  return { kind: 'waiting', why }
}

/**
 * Rows that the tables have stored since the archive last read Kafka make no difference: they are in
 * one of its next lists.
 */
function reported({ offsets, differences }: Compared, { ends }: Confirmation): Obstacle {
  const unmerged = [...offsets].find(([chain, next]) => next > (ends[chain] ?? 0))
  if (unmerged === undefined) return { kind: 'differs', differences }
  const named = differences.slice(0, 1).map(describeDifference).join()
  return waiting(`the archive has not merged what the tables have: ${named}`)
}

/** What the tables have stored, by the path of the archive's chain. */
async function offsetsOf(on: Queryable): Promise<Map<string, number>> {
  const offsets = await readOffsets(on)
  return new Map(offsets.map((one) => [chainPath(one), one.nextOffset]))
}

function keysOf(chunk: OldChunk): string[] {
  return (daysOf(chunk) ?? []).flatMap((date) =>
    archiveTablesOf(chunk.table).map((table) => archivedDayKey({ table, date })),
  )
}

function nameOf({ table, start }: OldChunk): string {
  return `${table} ${start.toISOString().slice(0, 10)}`
}
