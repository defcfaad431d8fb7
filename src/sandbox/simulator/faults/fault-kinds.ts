import { z } from 'zod'
import { restOf, TRADE_TYPES } from '../../../foundation/market/event.ts'
import { TapelineError } from '../../../foundation/runtime/errors.ts'

/*
 * All faults, one schema per kind. Durations are milliseconds.
 * Omitted fields have the defaults given here. An omitted matcher matches everything.
 */

/** The headings of docs/faults.md. */
type FaultGroup = 'Frames' | 'Connections' | 'Ids' | 'Symbols' | 'REST'

const LONGEST_MS = 24 * 3_600_000
const LONGEST_DELAY_MS = 60_000
const GARBAGE_BYTES = 2 * 1_024 * 1_024
const LARGEST_GARBAGE = 16 * 1_024 * 1_024

const ms = z.int().min(0).max(LONGEST_MS)
const id = z.int().min(0)
const symbol = z.string().min(1).toUpperCase()
const once = { afterMs: ms.default(0) }
const times = {
  ...once,
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
const close = (code: number) => ({
  code: z.int().min(1_000).max(4_999).default(code),
  reason: z.string().max(100).default(''),
})
const answer = (status: number) => ({
  status: z.int().min(400).max(599).default(status),
  retryAfterSeconds: id.optional(),
})
const ofFrames = { ...times, ...chance, ...ofConnection, ...ofStream }
const ofRequests = {
  ...times,
  ...chance,
  path: z
    .enum([...TRADE_TYPES.map((type) => restOf(type).path), 'depth', 'exchangeInfo', 'time', 'ping'])
    .optional(),
  symbol: symbol.optional(),
}
const ofRows = { ...times, symbol: symbol.optional() }
const idType = z.enum(TRADE_TYPES)

/** One kind of fault; the documents derive from it. @param about its effect, and its own fields */
function kind<Name extends string, Fields extends z.ZodRawShape>(
  name: Name,
  group: FaultGroup,
  about: string,
  fields: Fields,
) {
  return z.strictObject({ kind: z.literal(name), ...fields }).meta({ group, about })
}

export const FAULTS = z.discriminatedUnion('kind', [
  kind('drop', 'Frames', 'frames are lost', ofFrames),
  kind('duplicate', 'Frames', 'frames are repeated, `copies` (1) times', {
    ...ofFrames,
    copies: z.int().min(1).max(100).default(1),
  }),
  kind(
    'delay',
    'Frames',
    'frames come `delayMs` later; a connection keeps its order, so a delayed one lags the others',
    { ...ofFrames, delayMs: ms.min(1).max(LONGEST_DELAY_MS) },
  ),
  kind('swap', 'Frames', 'a frame comes after the next one of its stream on the connection', ofFrames),
  kind(
    'alter',
    'Frames',
    'a level of a depth diff has another quantity; `level`: `any` of them (default), or the `best` of a side',
    { ...ofFrames, level: z.enum(['any', 'best']).default('any') },
  ),
  kind(
    'garbage',
    'Frames',
    'something else comes before a frame, `count` (1) times; `form`: `text` (the text `text`), `truncated` (half of the frame), `binary` (the frame as a binary message), `oversized` (JSON of `bytes`, 2 MiB), `protocol` (bytes that are not a frame)',
    {
      ...ofFrames,
      count: z.int().min(1).default(1),
      form: z.enum(['text', 'truncated', 'binary', 'oversized', 'protocol']).default('text'),
      text: z.string().default('garbage'),
      bytes: z.int().min(1).max(LARGEST_GARBAGE).default(GARBAGE_BYTES),
    },
  ),
  kind(
    'stall',
    'Frames',
    'frames of `stream` (all) on `connection` (all) are lost. `pings` (true): whether pings continue. `healedBy` (`time`): `resubscribe` ends it for a connection that unsubscribes and subscribes again, and for new ones; `reconnect` for new ones only',
    {
      ...times,
      ...ofConnection,
      ...ofStream,
      pings: z.boolean().default(true),
      healedBy: z.enum(['time', 'resubscribe', 'reconnect']).default('time'),
    },
  ),
  kind(
    'cut',
    'Connections',
    'open connections (`connection`, `stream`: those with such a stream) end, once. `how`: `reset` (TCP reset), `end` (no closing handshake), `close` (with `code` 1001 and `reason`). Takes `afterMs`',
    {
      ...once,
      ...ofConnection,
      ...ofStream,
      how: z.enum(['reset', 'end', 'close']).default('reset'),
      ...close(1_001),
    },
  ),
  kind(
    'serverShutdown',
    'Connections',
    'open connections (`connection`) get the event, and are closed `graceMs` (10,000) later, unless you end the fault before. Takes `afterMs`',
    { ...once, ...ofConnection, graceMs: ms.default(10_000) },
  ),
  kind(
    'freeze',
    'Connections',
    "the server stops `reading` (true) from and `writing` (true) to the socket of `connection` (all, new ones too); data comes late, and nothing is lost unless the backlog exceeds the exchange's 16 MiB. After more than 60 s, the pong is missed",
    { ...times, ...ofConnection, reading: z.boolean().default(true), writing: z.boolean().default(true) },
  ),
  kind(
    'refuse',
    'Connections',
    'upgrades get `status` (503) with `retryAfterSeconds`; `how`: `reset` resets the connection instead. `count`, `probability`, `seed`',
    { ...times, ...chance, how: z.enum(['status', 'reset']).default('status'), ...answer(503) },
  ),
  kind(
    'unreachable',
    'Connections',
    'the port is closed for `forMs` (required): the system refuses REST, new connections and `/faults`; open connections stay',
    { ...times, forMs: ms.min(1) },
  ),
  kind(
    'closeAfterHandshake',
    'Connections',
    'new connections are closed with `code` (1008) and `reason`, `delayMs` (0) after the handshake. `count`, `probability`, `seed`',
    { ...times, ...chance, ...close(1_008), delayMs: ms.max(LONGEST_DELAY_MS).default(0) },
  ),
  kind(
    'restartIds',
    'Ids',
    'the `ids` (`both`: `trade` and `aggTrade`; or one type) of `symbol` restart at `firstId` (1) with the next event. REST shows only the new sequence: for it, ids of the old one do not exist yet. `exchange.history` knows all sequences, by epoch, counted from 0. Takes `afterMs`. Update ids continue unless `ids` is `update`: those of bookTicker and depth, also in snapshots',
    {
      ...once,
      symbol,
      ids: z.enum([...TRADE_TYPES, 'both', 'update']).default('both'),
      firstId: id.default(1),
    },
  ),
  kind(
    'halt',
    'Symbols',
    '`symbol` does not trade: its status in `exchangeInfo` is `status` (`BREAK`, or `HALT`), it has no events, and its ids continue afterwards. Takes `afterMs` and `forMs`',
    { ...times, symbol, status: z.enum(['BREAK', 'HALT']).default('BREAK') },
  ),
  kind(
    'delist',
    'Symbols',
    '`symbol` is not listed: it is absent from `exchangeInfo`, REST answers 400 with the code -1121, and it has no events. When the fault ends, the symbol is listed again. Takes `afterMs` and `forMs`',
    { ...times, symbol },
  ),
  kind(
    'list',
    'Symbols',
    'ends each `delist` of `symbol`; its ids begin at `firstId` (0), like those of a new symbol. To list a symbol while clients run, delist it first. Takes `afterMs`',
    { ...once, symbol, firstId: id.default(0) },
  ),
  kind(
    'restError',
    'REST',
    '`status` (500; also 429, 418, 403, 451, …), with `retryAfterSeconds` (5 at 429, 120 at 418)',
    { ...ofRequests, ...answer(500) },
  ),
  kind('restReset', 'REST', 'the connection is reset instead of an answer', ofRequests),
  kind('restSlow', 'REST', 'the answer comes `delayMs` later, with the data of then', {
    ...ofRequests,
    delayMs: ms.min(1).max(LONGEST_DELAY_MS),
  }),
  kind('restShort', 'REST', 'only the first `rows` rows of an answer, of `symbol` (all)', {
    ...ofRows,
    rows: z.int().min(0).max(999),
  }),
  kind(
    'restLag',
    'REST',
    'rows of the last `lagMs` are missing, of `symbol` (all), and snapshots of its order book are that old; in a replay this is the time of the capture',
    { ...ofRows, lagMs: ms.min(1) },
  ),
  kind(
    'restHole',
    'REST',
    'rows from `fromId` to `toId` are absent, and the following ones take their place; `ids`: the type, of `symbol` (all)',
    { ...ofRows, ids: idType, fromId: id, toId: id },
  ),
  kind(
    'restClamp',
    'REST',
    'an older `fromId` is silently moved forward to `oldestId`; `ids`, `symbol` as above',
    { ...ofRows, ids: idType, oldestId: id },
  ),
])

export type FaultRequest = z.input<typeof FAULTS>

/** A fault after validation, with all defaults. */
export type FaultSpec = z.output<typeof FAULTS>

export type FaultKind = FaultSpec['kind']

export const FAULT_KINDS: readonly FaultKind[] = FAULTS.options.flatMap(({ shape }) => [...shape.kind.values])

export type SpecOf<Kind extends FaultKind> = Extract<FaultSpec, { kind: Kind }>

/** @throws {TapelineError} `INPUT` naming each invalid field */
export function parseFault(value: unknown): FaultSpec {
  const parsed = FAULTS.safeParse(value)
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
