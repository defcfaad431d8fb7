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
 * When Kafka has lost messages that are in the chain, an end takes the place of the next record. It
 * names the offset where the next incarnation begins. The rows of the one before stay. Since the end
 * has the name of a record, an owner that is still in the incarnation before cannot add one to it.
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
  /** Milliseconds since the Unix epoch. */
  at: z.int(),
})

/** Where the next incarnation begins, and how the message before it is known to the brokers. */
const END = z.object({
  format: z.literal(1),
  restartAt: offset,
  /** −1 if unknown. */
  leaderEpoch: z.int(),
  at: z.int(),
})

export type IncarnationEnd = Omit<z.infer<typeof END>, 'format'>

const ENTRY = z.union([RECORD, END])

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
   * Reads the end of the chain; null if there is none.
   *
   * @throws TapelineError `ARCHIVE` if its last record is damaged
   */
  async head(): Promise<ChainHead | null> {
    const folded = await this.#lastFold()
    const last = (
      await this.#store.list(this.#folder, this.#afterKey(folded === null ? ORIGIN : pointOf(folded)))
    ).at(-1)
    if (last === undefined) return folded
    if (last === this.#beginningKey) return headOf(1, await this.#read(last, BEGINNING))
    return headOf(this.#incarnationOf(last), await this.#read(last, ENTRY))
  }

  /** Reads the records from a point of the chain on, in order. Fails like {@link eachRecord}. */
  records(after: ChainPoint = ORIGIN): Promise<ChainRecord[]> {
    return Array.fromAsync(this.eachRecord(after))
  }

  /**
   * Reads the records from a point of the chain on, in order, and keeps few in memory.
   *
   * @throws TapelineError `ARCHIVE` if one is missing or damaged
   */
  async *eachRecord(after: ChainPoint = ORIGIN): AsyncGenerator<ChainRecord, void> {
    const keys = await this.#store.list(this.#folder, this.#afterKey(after))
    const contents = new Map<string, Buffer | null>()
    let at: ChainPoint = after
    for (let i = 0; i < keys.length; ) {
      const next = at.incarnation === 0 ? this.#beginningKey : this.#recordKey(at.incarnation, at.offset)
      // A listing may lack a record that was created meanwhile, and have the one after it.
      if (keys[i] !== next) contents.set(next, await this.#store.read(next))
      else if (!contents.has(next)) {
        // In parallel: a bucket takes a while for each.
        contents.clear()
        const some = keys
          .slice(i, i + READS)
          .map(async (one) => contents.set(one, await this.#store.read(one)))
        await Promise.all(some)
      }
      const content = contents.get(next) ?? null
      if (keys[i] === next) i++
      else if (content === null)
        throw damaged(keys[i] ?? '', `the record before it is missing: expected ${next}`)
      if (at.incarnation === 0) {
        at = pointOf(headOf(1, decoded(next, content, BEGINNING)))
        continue
      }
      const entry = decoded(next, content, ENTRY)
      if ('files' in entry) yield { ...entry, incarnation: at.incarnation }
      at = pointOf(headOf(at.incarnation, entry))
    }
  }

  /**
   * Begins the chain, unless another owner has.
   *
   * @returns the head of the chain as it was begun, by us or another
   */
  async begin(beginning: Omit<z.infer<typeof BEGINNING>, 'format'>): Promise<ChainHead> {
    await this.#store.create(this.#beginningKey, encode({ format: 1, ...beginning }))
    return headOf(1, await this.#read(this.#beginningKey, BEGINNING))
  }

  /**
   * Ends the incarnation at its head, unless another owner has added a record or an end there.
   *
   * @returns the head of the chain then
   */
  async end({ incarnation, offset }: ChainPoint, end: IncarnationEnd): Promise<ChainHead> {
    await this.#store.create(this.#recordKey(incarnation, offset), encode({ format: 1, ...end }))
    const head = await this.head()
    if (head === null) throw damaged(this.#folder, 'it has no records')
    return head
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
    const there = await this.#read(key, ENTRY)
    return 'segment' in there && there.segment === record.segment
  }

  /** Everything before this point is in published days; compaction reads the records after it. */
  async foldedTo(): Promise<ChainPoint> {
    const folded = await this.#lastFold()
    return folded === null ? ORIGIN : pointOf(folded)
  }

  /** Notes that everything before a point is in published days. */
  async foldTo({ incarnation, nextOffset, leaderEpoch }: ChainHead): Promise<void> {
    const name = `${padded(incarnation, INCARNATION_DIGITS)}-${padded(nextOffset, OFFSET_DIGITS)}-${leaderEpoch}`
    const key = `${this.#foldFolder}/${name}.json`
    await this.#store.create(key, encode({ format: 1 }))
    // Only the last one counts: a start after years lists one page of them.
    for (const one of await this.#store.list(this.#foldFolder)) if (one < key) await this.#store.remove(one)
  }

  async #lastFold(): Promise<ChainHead | null> {
    const last = (await this.#store.list(this.#foldFolder)).at(-1)
    return last === undefined ? null : foldOf(last)
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

  /**
   * Returns the files of a table that records before a point name, of segments that stay.
   *
   * @throws TapelineError `ARCHIVE` if a record is missing or damaged
   */
  async foldedFiles(to: ChainPoint, table: string): Promise<SegmentFile[]> {
    const kept = (await this.segmentFiles()).filter((file) => file.table === table && isBefore(file, to))
    const files: SegmentFile[] = []
    for (let i = 0; i < kept.length; i += READS) {
      const some = kept.slice(i, i + READS).map(async ({ key, incarnation, offset }) => {
        const entry = await this.#read(this.#recordKey(incarnation, offset), ENTRY)
        return 'files' in entry ? entry.files.filter((file) => file.key === key) : []
      })
      files.push(...(await Promise.all(some)).flat())
    }
    return files
  }

  /** The key of a segment's file for a table. */
  segmentKey(incarnation: number, firstOffset: number, segment: string, table: string): string {
    const folder = `${SEGMENTS}/${chainPath(this.#partition)}/${padded(incarnation, INCARNATION_DIGITS)}`
    return `${folder}/${padded(firstOffset, OFFSET_DIGITS)}-${segment}-${table}.parquet`
  }

  /** Sorts after all keys of records before a point, and before that of the record that begins there. */
  #afterKey({ incarnation, offset }: ChainPoint): string {
    if (incarnation === 0) return ''
    return this.#recordKey(incarnation, offset).slice(0, -'.json'.length)
  }

  #incarnationOf(key: string): number {
    return Number(key.slice(this.#folder.length + 1).slice(0, INCARNATION_DIGITS))
  }

  get #foldFolder(): string {
    return `${FOLDS}/${chainPath(this.#partition)}`
  }

  #recordKey(incarnation: number, firstOffset: number): string {
    return `${this.#folder}/${padded(incarnation, INCARNATION_DIGITS)}/${padded(firstOffset, OFFSET_DIGITS)}.json`
  }

  /** Sorts before the records. */
  get #beginningKey(): string {
    return `${this.#folder}/${padded(1, INCARNATION_DIGITS)}.json`
  }

  async #read<Content>(key: string, schema: z.ZodType<Content>): Promise<Content> {
    return decoded(key, await this.#store.read(key), schema)
  }
}

function decoded<Content>(key: string, bytes: Buffer | null, schema: z.ZodType<Content>): Content {
  if (bytes === null) throw damaged(key, 'it is missing')
  const parsed = schema.safeParse(parseJson(bytes.toString()))
  if (!parsed.success) throw damaged(key, 'it is not a record of this version')
  return parsed.data
}

/** Returns the end of a chain whose last entry this is. */
function headOf(incarnation: number, entry: z.infer<typeof BEGINNING> | z.infer<typeof ENTRY>): ChainHead {
  if ('nextOffset' in entry)
    return { incarnation, nextOffset: entry.nextOffset, leaderEpoch: entry.leaderEpoch }
  if ('restartAt' in entry)
    return { incarnation: incarnation + 1, nextOffset: entry.restartAt, leaderEpoch: entry.leaderEpoch }
  return { incarnation, nextOffset: entry.firstOffset, leaderEpoch: -1 }
}

function pointOf({ incarnation, nextOffset }: ChainHead): ChainPoint {
  return { incarnation, offset: nextOffset }
}

/** @param key of a fold: incarnation, offset and leader epoch, joined by hyphens */
function foldOf(key: string): ChainHead {
  const [incarnation, nextOffset, leaderEpoch] =
    /(\d+)-(\d+)-(-?\d+)\.json$/.exec(key)?.slice(1).map(Number) ?? []
  if (incarnation === undefined || nextOffset === undefined || leaderEpoch === undefined)
    throw damaged(key, 'its name is not that of a fold')
  return { incarnation, nextOffset, leaderEpoch }
}

export function isBefore(one: ChainPoint, other: ChainPoint): boolean {
  return (
    one.incarnation < other.incarnation ||
    (one.incarnation === other.incarnation && one.offset < other.offset)
  )
}

/** Identifies a chain in keys and day lists. */
export function chainPath({ topic, topicId, partition }: PartitionOrigin): string {
  return `${topic}/${topicId}/${partition}`
}

export function padded(value: number, digits: number): string {
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
