import { DEFAULT_EVENT_TYPES, streamName } from '../src/foundation/market/event.ts'
import { TapelineError } from '../src/foundation/runtime/errors.ts'
import type { FaultRequest } from '../src/sandbox/simulator/faults/fault-kinds.ts'
import type { Random } from '../src/sandbox/simulator/market/random.ts'

/** Faults that are drawn only with `--also`, since they change the expected outcome of a run. */
export const RARE_FAULTS = ['403', '451', 'longStall'] as const
export type RareFault = (typeof RARE_FAULTS)[number]

/** An action on the exchange. */
export type ExchangeAct =
  | { readonly type: 'add'; readonly requests: readonly FaultRequest[] }
  /**
   * Drops future ids from the stream and denies them over REST for a while. The ids are known only
   * when the fault begins.
   */
  | {
      readonly type: 'absent'
      readonly how: 'restHole' | 'restClamp'
      readonly symbol: string
      readonly ids: 'trade' | 'aggTrade'
      readonly count: number
      readonly forMs: number
    }

/** One kind of fault, and how to draw one of it. */
export interface Card {
  /** Name in counts, reports and `--only`. */
  readonly name: string
  draw(random: Random): { readonly holdMs: number; readonly act: ExchangeAct }
}
export type Deck = readonly Card[]

interface DeckOptions {
  readonly also: readonly RareFault[]
  readonly only: readonly string[] | null
  /** Whether order books are recorded. */
  readonly depth: boolean
}

/** Limit for a fault without a duration: it ends after this time even if nothing was struck. */
const BOUND_MS = 10_000
/** Leaves time for the stall detector of single streams, which acts after 30 s. */
const LONG_STALL_MS = 45_000

const between = (random: Random, low: number, high: number) => Math.round(random.between(low, high))
const anySymbol = (random: Random) => random.pick(['BTCUSDT', 'ETHUSDT', 'BNBUSDT'])
const anyStream = (random: Random) => {
  return streamName(anySymbol(random), random.pick(DEFAULT_EVENT_TYPES))
}

/** A fault that lasts for a drawn time. */
function lasting(
  name: string,
  low: number,
  high: number,
  request: (random: Random, forMs: number) => FaultRequest,
): Card {
  return {
    name,
    draw(random) {
      const forMs = between(random, low, high)
      return { holdMs: forMs, act: { type: 'add', requests: [request(random, forMs)] } }
    },
  }
}

/** A fault that strikes at once. */
function sudden(name: string, ...requests: FaultRequest[]): Card {
  return { name, draw: () => ({ holdMs: 0, act: { type: 'add', requests } }) }
}

/** A fault of the handshake, with a cut so that ingestion reconnects. */
function onConnecting(name: string, request: (random: Random) => FaultRequest): Card {
  return {
    name,
    draw: (random) => ({
      holdMs: 0,
      act: { type: 'add', requests: [request(random), { kind: 'cut', how: 'reset' }] },
    }),
  }
}

/** A fault of REST, with lost frames so that ingestion sends requests. */
function overRest(
  name: string,
  low: number,
  high: number,
  request: (random: Random, forMs: number) => FaultRequest,
  streams: readonly string[] = ['*@trade', '*@aggTrade'],
): Card {
  return {
    name,
    draw(random) {
      const forMs = between(random, low, high)
      const drop: FaultRequest = {
        kind: 'drop',
        stream: random.pick(streams),
        count: between(random, 1, 30),
        forMs: BOUND_MS,
      }
      return { holdMs: forMs, act: { type: 'add', requests: [request(random, forMs), drop] } }
    },
  }
}

const retryAfter = (random: Random) => between(random, 1, 4)

const USUAL: Deck = [
  lasting('drop', BOUND_MS / 10, BOUND_MS / 5, (random, forMs) => ({
    kind: 'drop',
    stream: anyStream(random),
    count: between(random, 1, 200),
    forMs,
  })),
  // Every lost id is a separate gap and request: a longer fault would use up the REST weight of a
  // whole minute.
  lasting('drop of all streams', 30, 150, (_, forMs) => ({ kind: 'drop', probability: 0.5, forMs })),
  lasting('duplicate', 1000, 4000, (random, forMs) => ({
    kind: 'duplicate',
    probability: 0.3,
    copies: between(random, 1, 3),
    forMs,
  })),
  lasting('delay', 1000, 4000, (random, forMs) => ({
    kind: 'delay',
    delayMs: between(random, 50, 1500),
    forMs,
  })),
  ...(['text', 'truncated', 'binary', 'oversized', 'protocol'] as const).map((form) =>
    sudden(`garbage ${form}`, { kind: 'garbage', form, count: form === 'text' ? 5 : 1, forMs: BOUND_MS }),
  ),
  lasting('stall of one stream', 1000, 6000, (random, forMs) => ({
    kind: 'stall',
    stream: anyStream(random),
    forMs,
  })),
  lasting('stall of all streams', 1000, 6000, (_, forMs) => ({ kind: 'stall', forMs })),
  sudden('cut reset', { kind: 'cut', how: 'reset' }),
  sudden('cut end', { kind: 'cut', how: 'end' }),
  sudden('cut close', { kind: 'cut', how: 'close', code: 1012, reason: 'restart' }),
  {
    name: 'serverShutdown',
    draw(random) {
      const graceMs = between(random, 1000, 9000)
      return { holdMs: graceMs, act: { type: 'add', requests: [{ kind: 'serverShutdown', graceMs }] } }
    },
  },
  lasting('freeze', 1000, 6000, (_, forMs) => ({ kind: 'freeze', forMs })),
  onConnecting('refuse', (random) => ({
    kind: 'refuse',
    status: random.pick([429, 500, 503]),
    count: between(random, 1, 2),
    forMs: BOUND_MS,
  })),
  onConnecting('refuse reset', () => ({ kind: 'refuse', how: 'reset', count: 1, forMs: BOUND_MS })),
  onConnecting('closeAfterHandshake', () => ({ kind: 'closeAfterHandshake', count: 1, forMs: BOUND_MS })),
  {
    name: 'unreachable',
    draw(random) {
      const forMs = between(random, 1000, 4000)
      const requests: FaultRequest[] = [
        { kind: 'unreachable', forMs },
        { kind: 'cut', how: 'reset' },
      ]
      return { holdMs: forMs, act: { type: 'add', requests } }
    },
  },
  ...[429, 418, 500].map((status) =>
    overRest(`restError ${status}`, 2000, 6000, (random, forMs) => ({
      kind: 'restError',
      status,
      ...(status === 500 ? {} : { retryAfterSeconds: retryAfter(random) }),
      count: between(random, 1, 3),
      forMs,
    })),
  ),
  overRest('restReset', 2000, 6000, (random, forMs) => ({
    kind: 'restReset',
    count: between(random, 1, 3),
    forMs,
  })),
  overRest('restSlow', 2000, 6000, (random, forMs) => ({
    kind: 'restSlow',
    delayMs: between(random, 200, 4000),
    forMs,
  })),
  overRest('restShort', 2000, 6000, (random, forMs) => ({
    kind: 'restShort',
    rows: between(random, 0, 10),
    forMs,
  })),
  overRest('restLag', 2000, 8000, (random, forMs) => ({
    kind: 'restLag',
    lagMs: between(random, 1000, 10_000),
    forMs,
  })),
  absent('restHole'),
  absent('restClamp'),
]

const DEPTH_STREAM = '*@depth@100ms'
const bookStream = (random: Random) => streamName(anySymbol(random), 'depth')

/** Faults of order books. A lost diff makes a hole, so that ingestion requests a snapshot. */
const OF_DEPTH: Deck = [
  lasting('depth drop', BOUND_MS / 10, BOUND_MS / 5, (random, forMs) => ({
    kind: 'drop',
    stream: bookStream(random),
    count: between(random, 1, 20),
    forMs,
  })),
  lasting('depth duplicate', 1000, 4000, (random, forMs) => ({
    kind: 'duplicate',
    stream: DEPTH_STREAM,
    probability: 0.5,
    copies: between(random, 1, 3),
    forMs,
  })),
  lasting('depth delay', 1000, 4000, (random, forMs) => ({
    kind: 'delay',
    stream: DEPTH_STREAM,
    delayMs: between(random, 50, 1500),
    forMs,
  })),
  lasting('depth stall', 1000, 6000, (random, forMs) => ({
    kind: 'stall',
    stream: bookStream(random),
    forMs,
  })),
  overSnapshot('depth snapshot late', (random, forMs) => ({
    kind: 'restSlow',
    path: 'depth',
    delayMs: between(random, 200, 4000),
    forMs,
  })),
  // Older than the first diff after the hole.
  overSnapshot('depth snapshot old', (random, forMs) => ({
    kind: 'restLag',
    lagMs: between(random, 1000, 10_000),
    forMs,
  })),
  overSnapshot('depth snapshot refused', (random, forMs) => ({
    kind: 'restError',
    path: 'depth',
    count: between(random, 1, 3),
    forMs,
  })),
]

function overSnapshot(name: string, request: (random: Random, forMs: number) => FaultRequest): Card {
  return overRest(name, 2000, 6000, request, [DEPTH_STREAM])
}

const RARE: Readonly<Record<RareFault, Card>> = {
  '403': overRest('restError 403', 500, 500, () => ({
    kind: 'restError',
    status: 403,
    count: 1,
    forMs: BOUND_MS,
  })),
  '451': overRest('restError 451', 500, 500, () => ({
    kind: 'restError',
    status: 451,
    count: 1,
    forMs: BOUND_MS,
  })),
  longStall: lasting('stall until resubscribed', LONG_STALL_MS, LONG_STALL_MS, (random, forMs) => ({
    kind: 'stall',
    stream: anyStream(random),
    healedBy: 'resubscribe',
    forMs,
  })),
}

function absent(how: 'restHole' | 'restClamp'): Card {
  return {
    name: how,
    draw(random) {
      const forMs = between(random, 3000, 15_000)
      const [symbol, ids] = [anySymbol(random), random.pick(['trade', 'aggTrade'] as const)]
      const count = between(random, 1, 50)
      return { holdMs: forMs, act: { type: 'absent', how, symbol, ids, count, forMs } }
    },
  }
}

/**
 * Returns one card for each kind of fault in docs/faults.md and each of its forms. `restartIds` is
 * excluded: rows carry no epoch yet, so nothing could be compared after it.
 *
 * @param options.only names of the faults to take; null: all
 * @throws TapelineError `INPUT` for an unknown name
 */
export function deckOf({ also, only, depth }: DeckOptions): Deck {
  const all = [...USUAL, ...(depth ? OF_DEPTH : []), ...also.map((name) => RARE[name])]
  const names = all.map(({ name }) => name)
  const wrong = only?.filter((name) => !names.includes(name)) ?? []
  if (wrong.length > 0) {
    throw new TapelineError('INPUT', `--only: unknown fault ${wrong.join(', ')}.`, {
      fix: `Choose from: ${names.join(', ')}.`,
    })
  }
  return only === null ? all : all.filter(({ name }) => only.includes(name))
}
