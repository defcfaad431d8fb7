import { z } from 'zod'
import { restOf, TRADE_TYPES } from '../../../foundation/market/event.ts'
import { TapelineError } from '../../../foundation/runtime/errors.ts'

/*
 * All faults, one schema per kind; docs/faults.md explains each field. Durations are milliseconds.
 * Omitted fields have the defaults given here. An omitted matcher matches everything.
 */

const LONGEST_MS = 24 * 3_600_000
const LONGEST_DELAY_MS = 60_000
const LARGEST_GARBAGE = 16 * 1_024 * 1_024

const ms = z.int().min(0).max(LONGEST_MS)
const id = z.int().min(0)
const times = {
  /** Delay before it begins. */
  afterMs: ms.default(0),
  /** Its duration. If omitted, it lasts until it has acted `count` times or is ended. */
  forMs: ms.min(1).optional(),
}
const chance = {
  /** It ends after acting on this many frames or requests. */
  count: z.int().min(1).optional(),
  /** Probability of acting on a match. */
  probability: z.number().gt(0).max(1).default(1),
  /** Seed of its random numbers. If omitted, it derives from the exchange's seed. */
  seed: id.optional(),
}
const ofConnection = { connection: z.int().min(1).optional() }
const ofStream = {
  /** A stream's name. `*` matches any part: `*@trade`, `btcusdt@*`. */
  stream: z.string().min(1).optional(),
}
const ofFrames = { ...times, ...chance, ...ofConnection, ...ofStream }
const ofRequests = {
  ...times,
  ...chance,
  path: z.enum([...TRADE_TYPES.map((type) => restOf(type).path), 'exchangeInfo', 'time', 'ping']).optional(),
  symbol: z.string().min(1).toUpperCase().optional(),
}
const ofRows = { ...times, symbol: z.string().min(1).toUpperCase().optional() }
const idType = z.enum(TRADE_TYPES)

const FAULT = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('drop'), ...ofFrames }),
  z.strictObject({ kind: z.literal('duplicate'), ...ofFrames, copies: z.int().min(1).max(100).default(1) }),
  z.strictObject({ kind: z.literal('delay'), ...ofFrames, delayMs: ms.min(1).max(LONGEST_DELAY_MS) }),
  z.strictObject({
    kind: z.literal('garbage'),
    ...ofFrames,
    count: z.int().min(1).default(1),
    form: z.enum(['text', 'truncated', 'binary', 'oversized', 'protocol']).default('text'),
    text: z.string().default('garbage'),
    bytes: z
      .int()
      .min(1)
      .max(LARGEST_GARBAGE)
      .default(2 * 1_024 * 1_024),
  }),
  z.strictObject({
    kind: z.literal('stall'),
    ...times,
    ...ofConnection,
    ...ofStream,
    pings: z.boolean().default(true),
    healedBy: z.enum(['time', 'resubscribe', 'reconnect']).default('time'),
  }),
  z.strictObject({
    kind: z.literal('cut'),
    afterMs: times.afterMs,
    ...ofConnection,
    ...ofStream,
    how: z.enum(['reset', 'end', 'close']).default('reset'),
    code: z.int().min(1_000).max(4_999).default(1_001),
    reason: z.string().max(100).default(''),
  }),
  z.strictObject({
    kind: z.literal('serverShutdown'),
    afterMs: times.afterMs,
    ...ofConnection,
    graceMs: ms.default(10_000),
  }),
  z.strictObject({
    kind: z.literal('freeze'),
    ...times,
    ...ofConnection,
    reading: z.boolean().default(true),
    writing: z.boolean().default(true),
  }),
  z.strictObject({
    kind: z.literal('refuse'),
    ...times,
    ...chance,
    how: z.enum(['status', 'reset']).default('status'),
    status: z.int().min(400).max(599).default(503),
    retryAfterSeconds: z.int().min(0).optional(),
  }),
  z.strictObject({ kind: z.literal('unreachable'), ...times, forMs: ms.min(1) }),
  z.strictObject({
    kind: z.literal('closeAfterHandshake'),
    ...times,
    ...chance,
    code: z.int().min(1_000).max(4_999).default(1_008),
    reason: z.string().max(100).default(''),
    delayMs: ms.max(LONGEST_DELAY_MS).default(0),
  }),
  z.strictObject({
    kind: z.literal('restartIds'),
    afterMs: times.afterMs,
    symbol: z.string().min(1).toUpperCase(),
    ids: z.enum([...TRADE_TYPES, 'both']).default('both'),
    firstId: id.default(1),
  }),
  z.strictObject({
    kind: z.literal('halt'),
    ...times,
    symbol: z.string().min(1).toUpperCase(),
    status: z.enum(['BREAK', 'HALT']).default('BREAK'),
  }),
  z.strictObject({ kind: z.literal('delist'), ...times, symbol: z.string().min(1).toUpperCase() }),
  z.strictObject({
    kind: z.literal('list'),
    afterMs: times.afterMs,
    symbol: z.string().min(1).toUpperCase(),
    firstId: id.default(0),
  }),
  z.strictObject({
    kind: z.literal('restError'),
    ...ofRequests,
    status: z.int().min(400).max(599).default(500),
    retryAfterSeconds: z.int().min(0).optional(),
  }),
  z.strictObject({ kind: z.literal('restReset'), ...ofRequests }),
  z.strictObject({ kind: z.literal('restSlow'), ...ofRequests, delayMs: ms.min(1).max(LONGEST_DELAY_MS) }),
  z.strictObject({ kind: z.literal('restShort'), ...ofRows, rows: z.int().min(0).max(999) }),
  z.strictObject({ kind: z.literal('restLag'), ...ofRows, lagMs: ms.min(1) }),
  z.strictObject({ kind: z.literal('restHole'), ...ofRows, ids: idType, fromId: id, toId: id }),
  z.strictObject({ kind: z.literal('restClamp'), ...ofRows, ids: idType, oldestId: id }),
])

/** A fault as requested. */
export type FaultRequest = z.input<typeof FAULT>

/** A fault after validation, with all defaults. */
export type FaultSpec = z.output<typeof FAULT>

export type FaultKind = FaultSpec['kind']

export const FAULT_KINDS: readonly FaultKind[] = FAULT.options.flatMap(({ shape }) => [...shape.kind.values])

/** The spec of one kind. */
export type SpecOf<Kind extends FaultKind> = Extract<FaultSpec, { kind: Kind }>

/** @throws {TapelineError} `INPUT` naming each invalid field */
export function parseFault(value: unknown): FaultSpec {
  const parsed = FAULT.safeParse(value)
  if (!parsed.success) {
    const problems = parsed.error.issues.map(({ path, message }) =>
      [path.join('.'), message].filter((part) => part !== '').join(': '),
    )
    throw new TapelineError('INPUT', `Invalid fault: ${problems.join('; ')}.`, {
      fix: 'See docs/faults.md for the kinds and their fields.',
    })
  }
  return parsed.data
}
