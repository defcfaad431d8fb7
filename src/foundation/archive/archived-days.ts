import { z } from 'zod'
import type { RecordFetcher } from '../kafka/kafka-port.ts'
import { readRange } from '../kafka/read-range.ts'
import type { OutgoingRecord } from '../kafka/record-sender.ts'
import { withinLimit } from '../runtime/backoff.ts'
import { TapelineError } from '../runtime/errors.ts'
import { parseJson } from '../runtime/outside-text.ts'

/*
 * What the archive says in its compacted topic, so that the consumer may drop days from the tables. All
 * records are in one partition, so they are read in the order in which they were written.
 */

/** The partition of every record. */
const PARTITION = 0
const READ_LIMIT_MS = 120_000

const HASH = z.string().regex(/^\d+$/)
const count = z.int().min(0)

const ARCHIVED_DAY = z.object({
  format: z.literal(1),
  table: z.string(),
  date: z.iso.date(),
  /** Number of the newest list; 0 if the archive has none. */
  list: count,
  /** The highest number that was announced: more than `list` in an archive of an earlier time. */
  highestList: count,
  /**
   * When the list was made; milliseconds since the Unix epoch. An archive of an earlier time may make
   * another list with this number.
   */
  publishedAt: z.int().default(0),
  /** When the files were read; milliseconds since the Unix epoch. */
  checkedAt: z.int(),
  rows: count,
  /** Sum of the hashes of all rows, decimal: see `row-hash.ts`. */
  hash: HASH,
  /** By the path of a chain, `topic/topic id/partition`: the rows before this point are in the list. */
  through: z.record(z.string(), z.object({ incarnation: count, offset: count })),
  /** By symbol: rows, and the sum of their hashes. */
  symbols: z.record(z.string(), z.tuple([z.int().min(1), HASH])),
})

/** What the archive has of a table's day. */
export type ArchivedDay = Omit<z.infer<typeof ARCHIVED_DAY>, 'format'>

const CONFIRMATION = z.object({
  format: z.literal(1),
  /** Milliseconds since the Unix epoch. */
  at: z.int(),
  /** By the path of a chain: the offset up to which its messages were archived. */
  ends: z.record(z.string(), count),
})

/**
 * The archive's statement that at this time it had every announced list with its files, and that the
 * lists of published days contain everything before the ends.
 */
export type Confirmation = Omit<z.infer<typeof CONFIRMATION>, 'format'>

/** A table's name has no `!`. */
const CONFIRMATION_KEY = '!archive'

export function archivedDayKey({ table, date }: Pick<ArchivedDay, 'table' | 'date'>): string {
  return `${table}/${date}`
}

export function archivedDayRecord(topic: string, day: ArchivedDay): OutgoingRecord {
  return recordOf(topic, archivedDayKey(day), { format: 1, ...day }, day.checkedAt)
}

export function confirmationRecord(topic: string, confirmation: Confirmation): OutgoingRecord {
  return recordOf(topic, CONFIRMATION_KEY, { format: 1, ...confirmation }, confirmation.at)
}

function recordOf(topic: string, key: string, value: object, timestampMs: number): OutgoingRecord {
  const text = Buffer.from(JSON.stringify(value))
  return { topic, partition: PARTITION, key: Buffer.from(key), value: text, headers: new Map(), timestampMs }
}

export interface Announced<Kept> {
  /** Null if the archive has said nothing yet. */
  readonly confirmation: Confirmation | null
  /** By {@link archivedDayKey}. */
  readonly days: ReadonlyMap<string, Kept>
}

/**
 * Reads the newest record of each key.
 *
 * @param fetcher of that topic; it is closed at the end
 * @param keep returns what is kept of a day; null: nothing
 * @throws TapelineError `ARCHIVE` for a record that this program cannot read; the error of a request
 */
export async function readAnnounced<Kept>(
  fetcher: RecordFetcher,
  topic: string,
  keep: (day: ArchivedDay) => Kept | null,
): Promise<Announced<Kept>> {
  const read = async (): Promise<Announced<Kept>> => {
    await fetcher.connect()
    const days = new Map<string, Kept>()
    let confirmation: Confirmation | null = null
    for (const range of await fetcher.offsetRanges()) {
      if (range.partition !== PARTITION) continue
      await readRange(fetcher, range, ({ key, value }) => {
        const name = key?.toString() ?? ''
        if (name === CONFIRMATION_KEY) {
          confirmation = parsed(CONFIRMATION, topic, name, value)
          return
        }
        const day = parsed(ARCHIVED_DAY, topic, name, value)
        const kept = day === null ? null : keep(day)
        if (kept === null) days.delete(name)
        else days.set(name, kept)
      })
    }
    return { confirmation, days }
  }
  try {
    return await withinLimit(read(), READ_LIMIT_MS, `${topic} could not be read`)
  } finally {
    await fetcher.close()
  }
}

function parsed<Value>(
  schema: z.ZodType<Value>,
  topic: string,
  key: string,
  value: Buffer | null,
): Value | null {
  if (value === null) return null
  const { success, data } = schema.safeParse(parseJson(value.toString()))
  if (success) return data
  throw new TapelineError('ARCHIVE', `Topic ${topic} has a record ${key} that this program cannot read`, {
    fix: 'Use the version of Tapeline that wrote it, or delete the topic and create it with `bin/tapeline topics init`: the archive writes its records again.',
  })
}
