import { describeKafkaError } from '../foundation/kafka/broker-errors.ts'
import { sendGapRows } from '../foundation/kafka/gap-sender.ts'
import { isStoredUpTo, readEnds } from '../foundation/kafka/read-range.ts'
import { type IdRow, reopened, requestRevision, requestsFor } from '../foundation/market/gap-requests.ts'
import { sleep } from '../foundation/runtime/backoff.ts'
import { Wake, wallMs } from '../foundation/runtime/clock.ts'
import { readOffsets } from '../foundation/store/consumer-offsets.ts'
import type { Database } from '../foundation/store/database.ts'
import { firstStoredId, missingIds, readIdGaps } from '../foundation/store/ledger-rows.ts'
import {
  fixRevision,
  type LostIds,
  noteLedgerTopic,
  type PendingLoss,
  readLedgerTopics,
  readPendingLosses,
  settle,
} from '../foundation/store/lost-ids.ts'
import { plural } from '../foundation/telemetry/plural.ts'
import type { ServicePorts } from '../foundation/telemetry/service.ts'
import type { ConsumerConfig } from './config.ts'

/** Another consumer may have noted a loss and then stopped. */
const LOOK_EVERY_MS = 60_000
/** While a loss is not settled: a gap is open, or Kafka or the database is unavailable. */
const RETRY_EVERY_MS = 5000
const OFFSETS_EVERY_MS = 500
/**
 * Within this time a running ingestion notices that the ledger topic was recreated, and writes its
 * rows into it.
 */
const LEDGER_SETTLES_MS = 60_000

/**
 * Asks ingestion to backfill what Kafka lost before it was stored. Runs apart from the writing of
 * batches, since it waits until the database has read the ledger: only then are the ids of each row
 * known. Specification: L6.
 */
export class Reopener {
  readonly #config: Pick<ConsumerConfig, 'kafka' | 'topics'>
  readonly #database: Database
  readonly #ports: ServicePorts
  readonly #stopping = new AbortController()
  readonly #wake: Wake
  /**
   * When the current ledger topic was first seen, in milliseconds since the Unix epoch; 0 for the
   * first topic.
   */
  #ledgerSinceMs = 0
  readonly #running: Promise<void>

  /** Begins to look for losses. */
  constructor(config: Pick<ConsumerConfig, 'kafka' | 'topics'>, database: Database, ports: ServicePorts) {
    this.#config = config
    this.#database = database
    this.#ports = ports
    this.#wake = new Wake(ports.clock)
    this.#running = this.#run()
  }

  /** Call when a loss was noted. */
  notice(): void {
    this.#wake.ring()
  }

  async stop(): Promise<void> {
    this.#stopping.abort(new Error('stopping'))
    this.#wake.ring()
    await this.#running
  }

  get #nowMs(): number {
    return wallMs(this.#ports.clock)
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping
    while (!signal.aborted) {
      const isSettled = await this.#pass().catch((error: unknown) => {
        if (!signal.aborted)
          this.#ports.log.warn(
            { err: error },
            `Requesting lost trades failed, retrying: ${describeKafkaError(error)}`,
          )
        return false
      })
      if (!signal.aborted) await this.#wake.wait(isSettled ? LOOK_EVERY_MS : RETRY_EVERY_MS)
    }
  }

  /** @returns whether no request is pending */
  async #pass(): Promise<boolean> {
    await this.#followLedger()
    const pending = await readPendingLosses(this.#database)
    if (pending.length === 0) return true
    const { trades, gaps } = this.#config.topics
    // The trades of a gap that is closed now lie below the end offsets read next.
    await this.#untilStored(gaps)
    const before = new Map<string, readonly IdRow[]>()
    for (const { key, lost } of pending) before.set(key, await readIdGaps(this.#database, lost))
    await this.#untilStored(trades)
    const failures: unknown[] = []
    for (const one of pending) {
      this.#stopping.signal.throwIfAborted()
      // A failure must not delay the others.
      await this.#ask(one, before.get(one.key) ?? []).catch((error: unknown) => failures.push(error))
    }
    if (failures.length > 0) throw failures[0]
    return false
  }

  /**
   * Requests every open gap again if the ledger topic was recreated: rows and requests that
   * ingestion had not read may be lost.
   */
  async #followLedger(): Promise<void> {
    const { kafka, topics } = this.#config
    const offsets = (await readOffsets(this.#database)).filter(({ topic }) => topic === topics.gaps)
    const [id, ...others] = new Set(offsets.map(({ topicId }) => topicId))
    if (id === undefined || others.length > 0) return
    const known = await readLedgerTopics(this.#database)
    const isRecreated = known.size > 0 && !known.has(id)
    if (isRecreated) {
      await this.#untilStored(topics.gaps)
      const open = (await readIdGaps(this.#database, {})).filter(({ status }) => status === 'open')
      const requests = open.map((row) =>
        reopened(row, { from: row.from_id, to: row.to_id }, requestRevision([row]), this.#nowMs),
      )
      await sendGapRows(kafka, topics.gaps, requests, this.#stopping.signal)
      this.#ports.log.warn(
        { gaps: requests.length },
        `Topic ${topics.gaps} was recreated: asked ingestion again for ${plural(requests.length, 'open gap')}`,
      )
    }
    if (!known.has(id)) {
      const sinceMs = isRecreated ? this.#nowMs : 0
      await this.#database.transaction((connection) => noteLedgerTopic(connection, id, sinceMs))
    }
    this.#ledgerSinceMs = (await readLedgerTopics(this.#database)).get(id) ?? 0
  }

  /** Waits until the database has stored everything that the topic holds now. */
  async #untilStored(topic: string): Promise<void> {
    const { signal } = this.#stopping
    const ends = await readEnds(this.#config.kafka, 'tapeline-consumer-ledger', [topic])
    for (;;) {
      const stored = await readOffsets(this.#database)
      if (isStoredUpTo(stored, ends)) return
      if (ends.some(({ topicId }) => stored.every((one) => one.topicId !== topicId)))
        throw new Error(`Topic ${topic} was recreated, and nothing of it is stored yet`)
      await sleep(OFFSETS_EVERY_MS, signal, this.#ports.clock)
    }
  }

  async #ask({ key, lost, revision: fixed }: PendingLoss, before: readonly IdRow[]): Promise<void> {
    const rows = await readIdGaps(this.#database, lost)
    const revision = await this.#database.transaction((connection) =>
      fixRevision(connection, key, fixed ?? requestRevision(rows)),
    )
    const earlier = rows.filter((row) => row.revision < revision)
    const known = new Set(before.map((row) => `${row.gap_id} ${row.revision}`))
    const wasFilled = (row: IdRow) => row.status === 'filled' && known.has(`${row.gap_id} ${row.revision}`)
    const requests = await this.#requests(lost, rows, earlier.filter(wasFilled), revision)
    if (requests.length > 0) {
      const { signal } = this.#stopping
      await sendGapRows(this.#config.kafka, this.#config.topics.gaps, requests, signal)
      const { symbol, eventType, cause } = lost
      this.#ports.log.warn(
        { symbol, type: eventType, cause, gaps: requests.length },
        `Messages were lost before they were stored: asked ingestion to reopen ${plural(requests.length, 'gap')}`,
      )
    }
    // An open gap may yet be filled by trades that are lost too.
    const isOver = earlier.every((row) => row.status === 'unrecoverable' || wasFilled(row))
    const isLedgerWhole = this.#nowMs - this.#ledgerSinceMs >= LEDGER_SETTLES_MS
    if (isOver && isLedgerWhole) await this.#database.transaction((connection) => settle(connection, key))
  }

  async #requests(
    lost: LostIds,
    rows: readonly IdRow[],
    filled: readonly IdRow[],
    revision: number,
  ): Promise<IdRow[]> {
    // Database retention may have dropped the rows below.
    const floor = (await firstStoredId(this.#database, lost)) ?? Number.POSITIVE_INFINITY
    const claimed = filled
      .filter((row) => row.to_id >= floor)
      .map((row) => ({ row, range: { from: Math.max(row.from_id, floor), to: row.to_id, ...timesOf(row) } }))
    const { fromMs, toMs } = lost
    const ranges = [
      ...claimed.map(({ range }) => range),
      ...(lost.range === null ? [] : [{ ...lost.range, fromMs, toMs }]),
    ]
    const missing = await missingIds(this.#database, lost, ranges)
    return requestsFor(
      lost,
      rows,
      claimed.map(({ row }, at) => ({ row, missing: missing[at] ?? [] })),
      lost.range === null ? [] : (missing.at(-1) ?? []),
      revision,
      this.#nowMs,
    )
  }
}

/** The trades of a ledger row were made before their absence was detected. */
function timesOf({ from_time, to_time, detected_at }: IdRow): { fromMs: number | null; toMs: number } {
  return { fromMs: from_time, toMs: to_time ?? detected_at }
}
