import { z } from 'zod'
import { EVENT_TYPES, SEQUENCED_TYPES } from '../../foundation/market/event.ts'

/*
 * The output of `tapeline verify --json`. Fields may be added and never change their meaning;
 * otherwise `format` would rise. Ids and counts are integers, times ISO 8601 in UTC, `epoch` is null
 * where a type has none.
 */

const count = z.int().min(0)
const eventType = z.enum(EVENT_TYPES)

/** One case of a finding. */
export const EXAMPLE = z.object({
  /** Trade ids, aggregate trade ids or update ids, both included; null if the case has no ids. */
  from: z.int().nullable(),
  to: z.int().nullable(),
  /** Describes the case in words. */
  detail: z.string(),
})

export const FINDING = z.object({
  /** The check with this finding: `continuity`, `duplicates`, … */
  check: z.string(),
  /** A stable name of the finding, unique within the check. */
  kind: z.string(),
  /** A failure fails the verdict; a notice does not. */
  severity: z.enum(['failure', 'notice']),
  symbol: z.string().nullable(),
  eventType: eventType.nullable(),
  epoch: z.int().nullable(),
  /** Number of cases; `examples` are the first ones. Null for a finding about the whole. */
  count: count.nullable(),
  /** The finding, as a sentence without its subject. */
  summary: z.string(),
  examples: z.array(EXAMPLE),
})

export const NOT_CHECKED = z.object({
  what: z.string(),
  symbol: z.string().nullable(),
  /** Number of rows or ids; null if unknown. */
  count: count.nullable(),
  examples: z.array(EXAMPLE),
})

export const SEQUENCE = z.object({
  symbol: z.string(),
  eventType: z.enum(SEQUENCED_TYPES),
  epoch: z.int(),
  rows: count,
  firstId: z.int(),
  lastId: z.int(),
  /** Rows with ids below the consumer's first id; no id between them counts as missing. */
  beforeStart: count,
  /** Ids that are not stored, between the first id, or the consumer's first, and the last. */
  missing: count,
  /** Missing ids that the ledger or a dead letter names. */
  explained: count,
  /** The other missing ids. */
  unexplained: count,
  /** Unexplained ids that the ledger calls filled. */
  saidFilled: count,
  /** Ids that are stored more than once, under different trade times. */
  doubled: count,
  /**
   * The smallest receipt minus event time: transfer time plus the difference of the clocks.
   * Negative when this machine's clock was late. Null if no row has an event time.
   */
  leastLatencyMs: z.number().nullable(),
})

export const QUOTES = z.object({
  symbol: z.string(),
  rows: count,
  firstAt: z.string(),
  lastAt: z.string(),
  /** Rows in excess of one per update id. */
  doubled: count,
})

export const OUTAGES = z.object({
  symbol: z.string(),
  windows: count,
  /** Time covered by the windows, each moment once. */
  seconds: z.number(),
  /** The longest windows, longest first. */
  longest: z.array(z.object({ from: z.string(), to: z.string(), seconds: z.number(), cause: z.string() })),
})

/** The order book of a symbol, rebuilt from its snapshots and changes (`docs/order-books.md`). */
export const BOOK = z.object({
  symbol: z.string(),
  epoch: z.int(),
  /** Stored changes. */
  changes: count,
  /** Changes after which the top of the book was compared with the last quote. */
  comparedTops: count,
  /** Changes after which the top was not known: before a snapshot, after missing ids, or outside the horizon. */
  unknownTops: count,
  quotes: count,
  /** Quotes whose absence would have been found. Its share of `quotes` is the detectable share. */
  detectableQuotes: count,
  /** Snapshots that were compared with the book rebuilt from the one before. */
  comparedSnapshots: count,
  /** Levels that were compared with snapshots. */
  comparedLevels: count,
  /** Keyframes that were compared with the book. They are no evidence for anything else. */
  comparedKeyframes: count,
})

export const WATERMARK = z.object({
  /** Why Kafka did not answer; null if it did. */
  notReached: z.string().nullable(),
  partitions: z.array(
    z.object({
      topic: z.string(),
      partition: z.int(),
      /** The offset below which the report covers everything; null when nothing is stored. */
      stored: count.nullable(),
      /** The next offset of the broker; null when Kafka was not reached. */
      end: count.nullable(),
      /** Messages in Kafka that this report does not cover; null when Kafka was not reached. */
      pending: count.nullable(),
    }),
  ),
  /** Sum of all partitions; null when Kafka was not reached. */
  pending: count.nullable(),
})

export const REPORT = z.object({
  format: z.literal(1),
  /** The moment whose rows were audited. */
  takenAt: z.string(),
  scope: z.object({
    symbols: z.array(z.string()).nullable(),
    from: z.string().nullable(),
    /** Not included. */
    to: z.string().nullable(),
  }),
  watermark: WATERMARK,
  sequences: z.array(SEQUENCE),
  quotes: z.array(QUOTES),
  outages: z.array(OUTAGES),
  books: z.array(BOOK),
  findings: z.array(FINDING),
  notChecked: z.array(NOT_CHECKED),
  /** Rows compared with the exchange; null when the comparison was not requested. */
  compared: count.nullable(),
  /** Duration of each check. */
  timings: z.array(z.object({ check: z.string(), ms: z.number() })),
  /** `empty`: the scope has no rows, so nothing was audited. */
  verdict: z.enum(['clean', 'not clean', 'empty']),
})

export type Example = z.infer<typeof EXAMPLE>
export type Finding = z.infer<typeof FINDING>
export type NotChecked = z.infer<typeof NOT_CHECKED>
export type SequenceReport = z.infer<typeof SEQUENCE>
export type QuotesReport = z.infer<typeof QUOTES>
export type BookReport = z.infer<typeof BOOK>
export type OutagesReport = z.infer<typeof OUTAGES>
export type Watermark = z.infer<typeof WATERMARK>
export type Report = z.infer<typeof REPORT>
