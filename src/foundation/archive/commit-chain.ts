import { z } from 'zod'
import type { PartitionOrigin } from '../kafka/partition.ts'
import { TapelineError } from '../runtime/errors.ts'
import { parseJson } from '../runtime/outside-text.ts'
import type { ObjectStore } from './object-store.ts'

/*
 * The archive is its own offset store. The rows of a partition are in segments; each segment is
 * announced by a commit record, and the records form a chain: a record is named after its first
 * offset, which is the next offset of the record before. A record is created only if absent, so two
 * owners of a partition cannot both add one: the second drops its segment and reads the chain again.
 *
 * When Kafka has lost messages that are in the chain, another incarnation begins at an offset that is
 * also created only if absent. The rows of the one before stay.
 */

const offset = z.int().min(0)

const SEGMENT_FILE = z.object({
  table: z.string(),
  key: z.string(),
  rows: z.int().min(1),
  bytes: z.int().min(1),
  sha256: z.string(),
  /** Rows by UTC day (`2026-01-31`). */
  days: z.record(z.string(), z.int().min(1)),
})

export type SegmentFile = z.infer<typeof SEGMENT_FILE>

const RECORD = z.object({
  format: z.literal(1),
  /** UUID: tells our own record from another's. */
  segment: z.string(),
  firstOffset: offset,
  nextOffset: offset,
  /** Leader epoch of the last message; −1 if unknown. */
  leaderEpoch: z.int(),
  /** Messages in the range that Kafka no longer had. */
  lost: z.int().min(0),
  /** Milliseconds since the Unix epoch. */
  committedAt: z.int(),
  files: z.array(SEGMENT_FILE),
})

export type CommitRecord = z.infer<typeof RECORD>

const BEGINNING = z.object({
  format: z.literal(1),
  firstOffset: offset,
  /** The next offset of the incarnation before; null for the first one. */
  before: offset.nullable(),
  at: z.int(),
})

export type Beginning = z.infer<typeof BEGINNING>

const FOLD = z.object({
  format: z.literal(1),
  /** That of the last folded record. */
  leaderEpoch: z.int().default(-1),
})

/** The end of a chain, where the next record goes. */
export interface ChainHead {
  /** From 1. */
  readonly incarnation: number
  readonly nextOffset: number
  readonly leaderEpoch: number
}

/** A place in a chain: everything before it is in records. */
export interface ChainPoint {
  readonly incarnation: number
  readonly offset: number
}

/** Before the first incarnation. */
export const ORIGIN: ChainPoint = { incarnation: 0, offset: 0 }

export type ChainRecord = CommitRecord & { readonly incarnation: number }

const COMMITS = '_commits'
const SEGMENTS = '_segments'
const FOLDS = '_folds'

/** Digits of an offset in a key, so that keys sort by it. */
const OFFSET_DIGITS = 20
const INCARNATION_DIGITS = 6
const UUID_LENGTH = 36

/** Records that are read at once. */
const READS = 16

/** The chain of one partition of one topic id. */
export class CommitChain {
  readonly #store: ObjectStore
  readonly #partition: PartitionOrigin
  readonly #folder: string

  constructor(store: ObjectStore, partition: PartitionOrigin) {
    this.#store = store
    this.#partition = partition
    this.#folder = `${COMMITS}/${chainPath(partition)}`
  }

  /**
   * Reads the end of the last incarnation; null if there is none.
   *
   * @throws TapelineError `ARCHIVE` if a record is damaged or the last one does not follow its
   *   predecessor
   */
  async head(): Promise<ChainHead | null> {
    const fold = await this.#lastFold()
    const keys = await this.#store.list(this.#folder, this.#afterKey(fold?.point ?? ORIGIN))
    const last = keys.at(-1)
    if (last === undefined) {
      if (fold === null) return null
      const { leaderEpoch } = await this.#read(fold.key, FOLD)
      return { incarnation: fold.point.incarnation, nextOffset: fold.point.offset, leaderEpoch }
    }
    const incarnation = this.#incarnationOf(last)
    if (last === this.#beginningKey(incarnation)) {
      const { firstOffset } = await this.#read(last, BEGINNING)
      return { incarnation, nextOffset: firstOffset, leaderEpoch: -1 }
    }
    const { nextOffset, leaderEpoch } = await this.#read(last, RECORD)
    return { incarnation, nextOffset, leaderEpoch }
  }

  /**
   * Reads the records from a point of the chain on, in order.
   *
   * @throws TapelineError `ARCHIVE` if one is missing or damaged
   */
  async records(after: ChainPoint = ORIGIN): Promise<ChainRecord[]> {
    const keys = await this.#store.list(this.#folder, this.#afterKey(after))
    const records: ChainRecord[] = []
    let at = after
    const contents = new Map<string, Buffer | null>()
    for (const [i, key] of keys.entries()) {
      if (!contents.has(key)) {
        // In parallel: a bucket takes a while for each.
        contents.clear()
        const some = keys
          .slice(i, i + READS)
          .map(async (one) => contents.set(one, await this.#store.read(one)))
        await Promise.all(some)
      }
      const content = contents.get(key) ?? null
      const incarnation = this.#incarnationOf(key)
      if (key === this.#beginningKey(incarnation)) {
        at = { incarnation, offset: decoded(key, content, BEGINNING).firstOffset }
        continue
      }
      if (key !== this.#recordKey(at.incarnation, at.offset))
        throw damaged(key, `the record before it is missing: expected one at offset ${at.offset}`)
      const record = decoded(key, content, RECORD)
      records.push({ ...record, incarnation })
      at = { incarnation, offset: record.nextOffset }
    }
    return records
  }

  /**
   * Begins an incarnation, unless another owner has.
   *
   * @returns the head of the incarnation as it was begun, by us or another
   */
  async begin(incarnation: number, beginning: Omit<Beginning, 'format'>): Promise<ChainHead> {
    const key = this.#beginningKey(incarnation)
    await this.#store.create(key, encode({ format: 1, ...beginning }))
    const { firstOffset } = await this.#read(key, BEGINNING)
    return { incarnation, nextOffset: firstOffset, leaderEpoch: -1 }
  }

  /**
   * Adds a record at the head. Its files must be durable.
   *
   * @returns false if another owner has added one there: the segment must be dropped, and the chain
   *   read again
   */
  async commit(incarnation: number, record: Omit<CommitRecord, 'format'>): Promise<boolean> {
    const key = this.#recordKey(incarnation, record.firstOffset)
    if (await this.#store.create(key, encode({ format: 1, ...record }))) return true
    // An earlier attempt, at another time, may have created it and got no answer.
    return (await this.#read(key, RECORD)).segment === record.segment
  }

  /** Everything before this point is in published days; compaction reads the records after it. */
  async foldedTo(): Promise<ChainPoint> {
    return (await this.#lastFold())?.point ?? ORIGIN
  }

  /**
   * Notes that everything before a point is in published days.
   *
   * @param leaderEpoch of the record that ends there
   */
  async foldTo({ incarnation, offset }: ChainPoint, leaderEpoch: number): Promise<void> {
    const name = `${padded(incarnation, INCARNATION_DIGITS)}-${padded(offset, OFFSET_DIGITS)}.json`
    const key = `${this.#foldFolder}/${name}`
    await this.#store.create(key, encode({ format: 1, leaderEpoch }))
    // Only the last one counts: a start after years lists one page of them.
    for (const one of await this.#store.list(this.#foldFolder)) if (one < key) await this.#store.remove(one)
  }

  async #lastFold(): Promise<{ readonly key: string; readonly point: ChainPoint } | null> {
    const key = (await this.#store.list(this.#foldFolder)).at(-1)
    if (key === undefined) return null
    const [incarnation, offset] = key
      .slice(this.#foldFolder.length + 1)
      .replace('.json', '')
      .split('-')
    return { key, point: { incarnation: Number(incarnation), offset: Number(offset) } }
  }

  /** Lists the files of all segments of the chain, also those of segments without a record. */
  async segmentFiles(): Promise<Array<ChainPoint & { readonly key: string; readonly table: string }>> {
    const folder = `${SEGMENTS}/${chainPath(this.#partition)}`
    return (await this.#store.list(folder)).map((key) => {
      const [incarnation = '', name = ''] = key.slice(folder.length + 1).split('/')
      // The offset, a UUID and the table, joined by hyphens.
      const table = name.slice(OFFSET_DIGITS + 1 + UUID_LENGTH + 1, -'.parquet'.length)
      return { key, table, incarnation: Number(incarnation), offset: Number(name.slice(0, OFFSET_DIGITS)) }
    })
  }

  /** The key of a segment's file for a table. */
  segmentKey(incarnation: number, firstOffset: number, segment: string, table: string): string {
    const folder = `${SEGMENTS}/${chainPath(this.#partition)}/${padded(incarnation, INCARNATION_DIGITS)}`
    return `${folder}/${padded(firstOffset, OFFSET_DIGITS)}-${segment}-${table}.parquet`
  }

  /** The key of the record that ends at a point, or of the incarnation that begins there, or below it. */
  #afterKey({ incarnation, offset }: ChainPoint): string {
    if (incarnation === 0) return ''
    // Keys of records are their first offsets: the one that begins here is wanted.
    const key = this.#recordKey(incarnation, offset)
    return `${key.slice(0, -'.json'.length)}`
  }

  #incarnationOf(key: string): number {
    return Number(key.slice(this.#folder.length + 1).slice(0, INCARNATION_DIGITS))
  }

  get #foldFolder(): string {
    return `${FOLDS}/${chainPath(this.#partition)}`
  }

  #recordFolder(incarnation: number): string {
    return `${this.#folder}/${padded(incarnation, INCARNATION_DIGITS)}`
  }

  #recordKey(incarnation: number, firstOffset: number): string {
    return `${this.#recordFolder(incarnation)}/${padded(firstOffset, OFFSET_DIGITS)}.json`
  }

  /** Sorts before the records of its incarnation. */
  #beginningKey(incarnation: number): string {
    return `${this.#recordFolder(incarnation)}.json`
  }

  async #read<Content>(key: string, schema: z.ZodType<Content>): Promise<Content> {
    return decoded(key, await this.#store.read(key), schema)
  }
}

function decoded<Content>(key: string, bytes: Buffer | null, schema: z.ZodType<Content>): Content {
  if (bytes === null) throw damaged(key, 'it is missing')
  const parsed = schema.safeParse(parseJson(bytes.toString()))
  if (!parsed.success) throw damaged(key, parsed.error.issues[0]?.message ?? 'it is not a record')
  return parsed.data
}

/** Identifies a chain in keys and day lists. */
export function chainPath({ topic, topicId, partition }: PartitionOrigin): string {
  return `${topic}/${topicId}/${partition}`
}

function padded(value: number, digits: number): string {
  return String(value).padStart(digits, '0')
}

function encode(content: object): Buffer {
  return Buffer.from(`${JSON.stringify(content)}\n`)
}

function damaged(key: string, why: string): TapelineError {
  return new TapelineError('ARCHIVE', `The archive is damaged at ${key}: ${why}`, {
    fix: 'Restore the file from a copy of the archive. Nothing is written until then.',
  })
}

/** Returns all partitions that have a chain, of all topics and topic ids. */
export async function chainsOf(store: ObjectStore): Promise<PartitionOrigin[]> {
  const chains: PartitionOrigin[] = []
  for (const topic of await store.folders(COMMITS))
    for (const topicId of await store.folders(`${COMMITS}/${topic}`))
      for (const partition of await store.folders(`${COMMITS}/${topic}/${topicId}`))
        chains.push({ topic, topicId, partition: Number(partition) })
  return chains
}
