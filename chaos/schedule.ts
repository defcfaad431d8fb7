import { Random } from '../src/sandbox/simulator/market/random.ts'
import { type Deck, deckOf } from './exchange-deck.ts'
import {
  CLOCK_FAULTS,
  CLUSTER_FAULTS,
  type ClockFault,
  type ClusterFault,
  type DiskFault,
  type ExchangeFault,
  PROCESS_FAULTS,
  type ProcessFault,
  type ProcessFaultKind,
} from './faults.ts'
import { type ChaosOptions, PART_NAMES, type PartName } from './options.ts'

export interface Schedule {
  readonly processFaults: readonly ProcessFault[]
  readonly clusterFaults: readonly ClusterFault[]
  readonly clockFaults: readonly ClockFault[]
  readonly exchangeFaults: readonly ExchangeFault[]
  readonly diskFaults: readonly DiskFault[]
}

type ScheduleOptions = Omit<ChaosOptions, 'jsonFile' | 'logsDir' | 'settings' | 'database'>

/** Time from the start to an outage of Kafka, or to the first exact pause. */
const EXACT_AFTER_MS = 20_000
/** Time between two exact pauses. */
const BETWEEN_FREEZES_MS = 30_000
const SHORTEST_WRONG_MS = 5000
const LONGEST_WRONG_MS = 15_000
/** Both below and above the 5 s after which ingestion closes its sockets. */
const SHORTEST_STILL_MS = 2500
const LONGEST_STILL_MS = 9000
const LONGEST_DOWN_MS = 4000
/** Ingestion closes its sockets after a pause of 5 s: pauses are shorter and longer than that. */
const LONGEST_PAUSE_MS = 12_000
const SHORTEST_MS = 300
const SHORTEST_FULL_MS = 2000
const LONGEST_FULL_MS = 10_000
/** Faults of processes for each full disk. */
const DISK_FAULT_EVERY = 4

/**
 * Draws all faults of a run from its seed: the same options give the same schedule. Kinds are dealt
 * from shuffled decks, so that each occurs once before any repeats.
 */
export function planFaults(options: ScheduleOptions): Schedule {
  const { forMs, exchangeEveryMs, kills, seed } = options
  // Separate random streams: a change of the parts does not change the faults of the exchange.
  const [ofProcesses, ofKills, ofExchange] = [1, 2, 3].map((stream) => new Random(seed * 4 + stream))
  if (ofProcesses === undefined || ofKills === undefined || ofExchange === undefined)
    throw new Error('unreachable')
  const others = new Random(seed * 4)
  const [ofCluster, ofClocks] = [new Random(seedFrom(others)), new Random(seedFrom(others))]
  const ofDisks = new Random(seedFrom(others))
  const exact = Object.entries(kills ?? {}).flatMap(([name, count]) => {
    const part = PART_NAMES.find((each) => each === name)
    return part === undefined ? [] : exactKills(part, count, forMs, ofKills)
  })
  const deck = deckOf(options)
  return {
    processFaults: [...drawnFaults(options, ofProcesses), ...exact, ...exactFreezes(options)].sort(
      (a, b) => a.atMs - b.atMs,
    ),
    clusterFaults: clusterFaults(options, ofCluster),
    clockFaults: clockFaults(options, ofClocks),
    exchangeFaults: exchangeEveryMs === null ? [] : exchangeFaults(deck, forMs, exchangeEveryMs, ofExchange),
    diskFaults: diskFaults(options, ofDisks),
  }
}

/** End of the last fault with an exact time. */
export function exactEndMs(options: Pick<ChaosOptions, 'outageMs' | 'freezes' | 'parts'>): number {
  const freezes = exactFreezes(options).map(({ atMs, holdMs }) => atMs + holdMs)
  return Math.max(options.outageMs === null ? 0 : EXACT_AFTER_MS + options.outageMs, ...freezes)
}

function drawnFaults({ forMs, everyMs, parts, kills }: ScheduleOptions, random: Random): ProcessFault[] {
  if (everyMs === null) return []
  const kinds = kills === null ? PROCESS_FAULTS : PROCESS_FAULTS.filter((kind) => kind !== 'kill')
  const deal = dealer(
    parts.flatMap((part) => kinds.map((kind) => ({ part, kind }))),
    random,
  )
  return momentsBetween(forMs, everyMs, random).map((atMs): ProcessFault => {
    const { part, kind } = deal()
    const holdMs = holdOf(kind, random)
    return { atMs, part, member: atMs, kind, holdMs }
  })
}

/** Pauses ingestion and the consumer in turn, each after the end of the previous pause. */
function exactFreezes({ freezes, parts }: Pick<ChaosOptions, 'freezes' | 'parts'>): ProcessFault[] {
  let nextMs = EXACT_AFTER_MS
  return freezes.flatMap((holdMs) =>
    services(parts).map((part): ProcessFault => {
      const atMs = nextMs
      nextMs += holdMs + BETWEEN_FREEZES_MS
      return { atMs, part, member: 0, kind: 'pause', holdMs }
    }),
  )
}

function clusterFaults(options: ScheduleOptions, random: Random): ClusterFault[] {
  const { forMs, clusterEveryMs, cadenceMs, outageMs } = options
  const fault = (kind: ClusterFault['kind'], atMs: number, untilMs = atMs): ClusterFault => ({
    ...{ atMs, kind, untilMs, holdMs: kind === 'outage' ? (outageMs ?? 0) : 0, seed: seedFrom(random) },
  })
  const faults: ClusterFault[] = []
  if (clusterEveryMs !== null) {
    const deal = dealer(CLUSTER_FAULTS, random)
    for (const atMs of momentsBetween(forMs, clusterEveryMs, random)) faults.push(fault(deal(), atMs))
  }
  if (cadenceMs !== null) {
    faults.push(fault('rolling restart', 0, forMs))
    for (let atMs = cadenceMs; atMs < forMs; atMs += cadenceMs)
      faults.push(fault('reassignment', atMs - cadenceMs / 2), fault('election', atMs))
  }
  if (outageMs !== null) faults.push(fault('outage', EXACT_AFTER_MS))
  return faults.sort((a, b) => a.atMs - b.atMs)
}

function clockFaults(
  { forMs, clockEveryMs, clockSteps, parts }: ScheduleOptions,
  random: Random,
): ClockFault[] {
  if (clockEveryMs === null) return []
  const cards = services(parts).flatMap((part) =>
    clockSteps.flatMap((stepMs) =>
      CLOCK_FAULTS.filter((kind) => kind !== 'suspend' || stepMs > 0).map((kind) => ({ part, kind, stepMs })),
    ),
  )
  const deal = dealer(cards, random)
  return momentsBetween(forMs, clockEveryMs, random).map((atMs): ClockFault => {
    const card = deal()
    return {
      ...{ atMs, ...card },
      holdMs: between(SHORTEST_WRONG_MS, LONGEST_WRONG_MS, random),
      stillMs: card.kind === 'suspend' ? between(SHORTEST_STILL_MS, LONGEST_STILL_MS, random) : 0,
    }
  })
}

/** As rare as the kills of one part. */
function diskFaults({ archive, forMs, everyMs, parts }: ScheduleOptions, random: Random): DiskFault[] {
  if (!archive || everyMs === null || !parts.includes('archive')) return []
  return momentsBetween(forMs, everyMs * DISK_FAULT_EVERY, random).map((atMs) => ({
    atMs,
    holdMs: between(SHORTEST_FULL_MS, LONGEST_FULL_MS, random),
  }))
}

function services(parts: readonly PartName[]): Array<'ingestion' | 'consumer'> {
  return (['ingestion', 'consumer'] as const).filter((name) => parts.includes(name))
}

function seedFrom(random: Random): number {
  return Math.floor(random.next() * 2 ** 32)
}

function between(shortest: number, longest: number, random: Random): number {
  return Math.round(shortest + (longest - shortest) * random.next())
}

function exchangeFaults(deck: Deck, forMs: number, everyMs: number, random: Random): ExchangeFault[] {
  const deal = dealer(deck, random)
  return momentsBetween(forMs, everyMs, random).map((atMs) => {
    const card = deal()
    return { atMs, name: card.name, ...card.draw(random) }
  })
}

/** Spreads kills over the time, one in each interval. */
function exactKills(part: PartName, count: number, forMs: number, random: Random): ProcessFault[] {
  return Array.from({ length: count }, (_, index) => ({
    atMs: Math.round((forMs * (index + 0.1 + 0.8 * random.next())) / count),
    part,
    member: index,
    kind: 'kill',
    holdMs: holdOf('kill', random),
  }))
}

function holdOf(kind: ProcessFaultKind, random: Random): number {
  if (kind === 'restart') return 0
  return between(SHORTEST_MS, kind === 'kill' ? LONGEST_DOWN_MS : LONGEST_PAUSE_MS, random)
}

/** Draws moments with waits of half to one and a half times the mean. */
function momentsBetween(forMs: number, everyMs: number, random: Random): number[] {
  const moments: number[] = []
  for (let atMs = 0; ; ) {
    atMs += everyMs * (0.5 + random.next())
    if (atMs >= forMs) return moments
    moments.push(Math.round(atMs))
  }
}

/** Deals the cards of a shuffled deck, and reshuffles it when it is empty. */
function dealer<Card>(cards: readonly Card[], random: Random): () => Card {
  let left: Card[] = []
  return () => {
    if (left.length === 0) left = [...cards]
    const [card] = left.splice(Math.floor(random.next() * left.length), 1)
    if (card === undefined) throw new Error('The deck has no cards')
    return card
  }
}
