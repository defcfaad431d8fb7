import { Random } from '../src/sandbox/simulator/market/random.ts'
import { type Deck, deckOf, type ExchangeAct } from './exchange-deck.ts'
import { type ChaosOptions, PART_NAMES, type PartName } from './options.ts'

export const PROCESS_FAULTS = ['kill', 'pause', 'restart'] as const
export type ProcessFaultKind = (typeof PROCESS_FAULTS)[number]

/** Times in milliseconds from the beginning of the faults. */
export interface ProcessFault {
  readonly atMs: number
  readonly part: PartName
  readonly kind: ProcessFaultKind
  /** Kill: how long it stays down. Pause: how long it stands still. Restart: 0, it is started as soon as it has ended. */
  readonly holdMs: number
}

export interface ExchangeFault {
  readonly atMs: number
  /** As it is counted and shown: `garbage truncated`. */
  readonly name: string
  /** How long it holds, 0 where it strikes once. */
  readonly holdMs: number
  readonly act: ExchangeAct
}

export interface Schedule {
  readonly processFaults: readonly ProcessFault[]
  readonly exchangeFaults: readonly ExchangeFault[]
}

type ScheduleOptions = Pick<
  ChaosOptions,
  'forMs' | 'seed' | 'parts' | 'kills' | 'everyMs' | 'exchangeEveryMs' | 'also' | 'only'
>

const LONGEST_DOWN_MS = 4000
/** Ingestion drops its sockets when it has stood still for 5 s: pauses lie on both sides of that. */
const LONGEST_PAUSE_MS = 12_000
const SHORTEST_MS = 300

/**
 * All faults of a run, drawn from its seed: the same options give the same schedule. Kinds are dealt from shuffled
 * decks, so that each comes up before any comes up again.
 */
export function planFaults(options: ScheduleOptions): Schedule {
  const { forMs, everyMs, exchangeEveryMs, parts, kills, seed } = options
  // Each has random numbers of its own: the faults of the exchange stay as they are when the parts are others.
  const [ofProcesses, ofKills, ofExchange] = [1, 2, 3].map((stream) => new Random(seed * 4 + stream))
  if (ofProcesses === undefined || ofKills === undefined || ofExchange === undefined)
    throw new Error('unreachable')
  const kinds = kills === null ? PROCESS_FAULTS : PROCESS_FAULTS.filter((kind) => kind !== 'kill')
  const combinations = parts.flatMap((part) => kinds.map((kind) => ({ part, kind })))
  const deal = dealer(combinations, ofProcesses)
  const moments = everyMs === null ? [] : momentsBetween(forMs, everyMs, ofProcesses)
  const drawn = moments.map((atMs): ProcessFault => {
    const { part, kind } = deal()
    return { atMs, part, kind, holdMs: holdOf(kind, ofProcesses) }
  })
  const exact = Object.entries(kills ?? {}).flatMap(([name, count]) => {
    const part = PART_NAMES.find((each) => each === name)
    return part === undefined ? [] : exactKills(part, count, forMs, ofKills)
  })
  const deck = deckOf(options.also, options.only)
  return {
    processFaults: [...drawn, ...exact].sort((a, b) => a.atMs - b.atMs),
    exchangeFaults: exchangeEveryMs === null ? [] : exchangeFaults(deck, forMs, exchangeEveryMs, ofExchange),
  }
}

function exchangeFaults(deck: Deck, forMs: number, everyMs: number, random: Random): ExchangeFault[] {
  const deal = dealer(deck, random)
  return momentsBetween(forMs, everyMs, random).map((atMs) => {
    const card = deal()
    return { atMs, name: card.name, ...card.draw(random) }
  })
}

/** Spread over the time, each somewhere in its own share of it. */
function exactKills(part: PartName, count: number, forMs: number, random: Random): ProcessFault[] {
  return Array.from({ length: count }, (_, index) => ({
    atMs: Math.round((forMs * (index + 0.1 + 0.8 * random.next())) / count),
    part,
    kind: 'kill',
    holdMs: holdOf('kill', random),
  }))
}

function holdOf(kind: ProcessFaultKind, random: Random): number {
  if (kind === 'restart') return 0
  const longest = kind === 'kill' ? LONGEST_DOWN_MS : LONGEST_PAUSE_MS
  return Math.round(SHORTEST_MS + (longest - SHORTEST_MS) * random.next())
}

/** Moments with waits of half to one and a half times the mean between them. */
function momentsBetween(forMs: number, everyMs: number, random: Random): number[] {
  const moments: number[] = []
  for (let atMs = 0; ; ) {
    atMs += everyMs * (0.5 + random.next())
    if (atMs >= forMs) return moments
    moments.push(Math.round(atMs))
  }
}

/** Deals the cards of a shuffled deck, and shuffles anew when all have been dealt. */
function dealer<Card>(cards: readonly Card[], random: Random): () => Card {
  let left: Card[] = []
  return () => {
    if (left.length === 0) left = [...cards]
    const [card] = left.splice(Math.floor(random.next() * left.length), 1)
    if (card === undefined) throw new Error('There is nothing to draw from')
    return card
  }
}
