import { z } from 'zod'

/*
 * What `tapeline verify --json` prints. Fields are added and never change their meaning; `format` would rise if one
 * had to. Ids and counts are integers, times ISO 8601 in UTC, `epoch` is null where a type has none.
 */

const count = z.int().min(0)
const eventType = z.enum(['trade', 'aggTrade', 'bookTicker'])

/** One case of a finding. */
export const EXAMPLE = z.object({
  /** Trade ids, aggregate trade ids or update ids, both included; null where it is no matter of ids. */
  from: z.int().nullable(),
  to: z.int().nullable(),
  /** What is wrong with it, in words. */
  detail: z.string(),
})

export const FINDING = z.object({
  /** The check that found it: `continuity`, `duplicates`, … */
  check: z.string(),
  /** A stable word for what was found, unique within the check. */
  kind: z.string(),
  /** A failure fails the verdict; a notice is counted and does not. */
  severity: z.enum(['failure', 'notice']),
  symbol: z.string().nullable(),
  eventType: eventType.nullable(),
  epoch: z.int().nullable(),
  /** All cases, of which `examples` are the first; null where it is one thing about the whole. */
  count: count.nullable(),
  /** What was found, as a sentence without its subject. */
  summary: z.string(),
  examples: z.array(EXAMPLE),
})

export const NOT_CHECKED = z.object({
  what: z.string(),
  symbol: z.string().nullable(),
  /** How many rows or ids; null where that is not known. */
  count: count.nullable(),
  examples: z.array(EXAMPLE),
})

export const SEQUENCE = z.object({
  symbol: z.string(),
  eventType: z.enum(['trade', 'aggTrade']),
  epoch: z.int(),
  rows: count,
  firstId: z.int(),
  lastId: z.int(),
  /** Rows with ids below the one that the consumer began with; no id between them counts as missing. */
  beforeStart: count,
  /** Ids between first, or where the consumer began, and last that are not stored. */
  missing: count,
  /** Those of the missing that the ledger or a dead letter names. */
  explained: count,
  /** The rest: what nothing explains. */
  unexplained: count,
  /** Those of the unexplained that the ledger says are filled. */
  saidFilled: count,
  /** Ids that are stored more than once, under different trade times. */
  doubled: count,
  /**
   * The smallest receipt less event time, of the way and the two clocks' difference together: negative when this machine's
   * clock was behind the exchange's. Null where no row has an event time.
   */
  leastLatencyMs: z.number().nullable(),
})

export const QUOTES = z.object({
  symbol: z.string(),
  rows: count,
  firstAt: z.string(),
  lastAt: z.string(),
  /** Rows beyond the first of their update id. */
  doubled: count,
})

export const OUTAGES = z.object({
  symbol: z.string(),
  windows: count,
  /** Time covered by the windows, each moment once. */
  seconds: z.number(),
  /** The longest, longest first. */
  longest: z.array(z.object({ from: z.string(), to: z.string(), seconds: z.number(), cause: z.string() })),
})

export const WATERMARK = z.object({
  /** Why Kafka could not be asked; null when it was. */
  notReached: z.string().nullable(),
  partitions: z.array(
    z.object({
      topic: z.string(),
      partition: z.int(),
      /** The offset below which everything is in this audit; null when nothing of the partition was stored yet. */
      stored: count.nullable(),
      /** The next offset that the broker will give; null when Kafka was not asked. */
      end: count.nullable(),
      /** Messages that are in Kafka and not in this audit; null when Kafka was not asked. */
      pending: count.nullable(),
    }),
  ),
  /** The sum; null when Kafka was not asked. */
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
  findings: z.array(FINDING),
  notChecked: z.array(NOT_CHECKED),
  /** Rows that were compared with the exchange; null where that was not asked for. */
  compared: count.nullable(),
  /** How long each check took. */
  timings: z.array(z.object({ check: z.string(), ms: z.number() })),
  /** `empty`: no row is in the scope, so nothing was audited. */
  verdict: z.enum(['clean', 'not clean', 'empty']),
})

export type Example = z.infer<typeof EXAMPLE>
export type Finding = z.infer<typeof FINDING>
export type NotChecked = z.infer<typeof NOT_CHECKED>
export type SequenceReport = z.infer<typeof SEQUENCE>
export type QuotesReport = z.infer<typeof QUOTES>
export type OutagesReport = z.infer<typeof OUTAGES>
export type Watermark = z.infer<typeof WATERMARK>
export type Report = z.infer<typeof REPORT>
