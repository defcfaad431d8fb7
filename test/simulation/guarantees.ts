import { beginsAtZero } from '../../src/foundation/market/event.ts'
import type { Gap } from '../../src/foundation/market/gap.ts'
import { countIds, type IdRange, normalise, subtract } from '../../src/foundation/market/id-ranges.ts'
import { bookViolations } from './books.ts'
import { FATE } from './fates.ts'
import type { TrueQuote, TrueSequence } from './market.ts'
import { wrongReceipts } from './receipts.ts'
import type { StallWatch } from './stalls.ts'
import type { StoredEvent, StoredStream } from './stored-events.ts'
import type { World } from './world.ts'

/** The latest arrival after sending: delays of all kinds together. */
const LAG_MS = 5000

/** A window counts only if it was recorded this soon after its outage. */
const ENTERED_WITHIN_MS = 900_000

/** A stall of a single stream is detected within this time while others deliver, in these markets. */
const NOTICED_WITHIN_MS = 900_000

/** Returns the violations of a run that is quiet, one sentence each, with clauses of the specification. */
export async function violations(world: World): Promise<string[]> {
  return [
    ...world.complaints,
    ...world.kafka.cluster.complaints,
    ...world.exchange.complaints,
    ...world.rest.complaints,
    ...world.stored.corrupt,
    ...world.stored.books.rejected,
    ...world.market.sequences.flatMap((sequence) => completeness(world, sequence)),
    ...world.market.symbols.flatMap((symbol) => outages(world, symbol)),
    ...[...world.stored.streams.values()].flatMap((stream) => [...once(stream), ...order(world, stream)]),
    ...wrongReceipts(world),
    ...stalls(world),
    ...needlessRows(world),
    ...(await bookViolations(world)),
  ]
}

/** G1, G6: every id from the first stored one on is stored or in a gap not filled; filled ids are stored. */
function completeness(world: World, sequence: TrueSequence): string[] {
  const { symbol, type, epoch } = sequence
  const name = `${symbol} ${type} ${epoch}`
  const stored =
    world.stored.streams.get(name)?.events.map(({ firstId: from, id: to }) => ({ from, to })) ?? []
  if (stored.length === 0) return []
  const present = normalise(stored)
  const gaps = [...world.ledger.values()].filter(
    (gap) => gap.symbol === symbol && gap.event_type === type && gap.epoch === epoch && gap.from_id !== null,
  )
  const ranges = (status: Gap['status']) => gaps.filter((gap) => gap.status === status).map(asRange)
  const isListed = beginsAtZero(type) && world.listed.has(symbol) && epoch === 0
  const first = isListed ? sequence.firstId : (present[0]?.from ?? 0)
  const last = sequence.firstId + sequence.timesMs.length - 1
  const isOver = world.market.current(symbol, type) !== sequence
  // Ids of an ended sequence that the exchange never sent are after the last forwarded one.
  const lastStored = present.at(-1)?.to ?? 0
  const known = isOver
    ? lastStored
    : type === 'depth'
      ? Math.max(lastStored, lastRead(world, sequence))
      : last
  const isDelisted = !world.market.statuses.has(symbol)
  const missing = subtract([{ from: first, to: isDelisted ? (present.at(-1)?.to ?? 0) : known }], present)
  const lost = ranges('unrecoverable')
  return [
    ...named(`G1 ${name}: neither stored nor in the ledger`, subtract(missing, [...lost, ...ranges('open')])),
    ...named(`G6 ${name}: filled in the ledger but not stored`, subtract(ranges('filled'), present)),
    ...named(`G1 ${name}: still open after half an hour without faults`, ranges('open')),
    ...named(`L6 ${name}: in two rows of the ledger`, shared(gaps.map(asRange))),
    ...named(
      `L4 ${name}: abandoned although REST has it`,
      subtract(lost, excused(world, sequence, isOver || isDelisted)),
    ),
  ]
}

/** The last update that the last process has read: what no connection delivers at the end is not known. */
function lastRead({ processes }: World, sequence: TrueSequence): number {
  const read = [...processes.values()].at(-1)?.read.filter((one) => one.sequence === sequence) ?? []
  return Math.max(0, ...read.map(({ to }) => to))
}

/** Ids that are in more than one of the ranges. */
function shared(ranges: readonly IdRange[]): IdRange[] {
  const sorted = ranges.toSorted((one, other) => one.from - other.from)
  return sorted.flatMap((range, at) => {
    const reached = Math.max(-1, ...sorted.slice(0, at).map(({ to }) => to))
    return range.from <= reached ? [{ from: range.from, to: Math.min(range.to, reached) }] : []
  })
}

/** Ids that may be abandoned: those that REST never shows, and those of an ended sequence. */
function excused(world: World, sequence: TrueSequence, isOver: boolean): IdRange[] {
  const all = { from: 0, to: Number.MAX_SAFE_INTEGER }
  // Past updates of order books cannot be fetched.
  if (isOver || sequence.type === 'depth') return [all]
  const neverWere = { from: 0, to: sequence.firstId - 1 }
  const holes = world.exchange.book
    .active('restHole')
    .filter(({ spec }) => spec.symbol === sequence.symbol && spec.ids === sequence.type)
  return [neverWere, ...holes.map(({ spec }) => ({ from: spec.fromId, to: spec.toId }))]
}

/** G2: a quote not stored was lost undetectably on an open connection, or lies in an outage of the ledger. */
function outages(world: World, symbol: string): string[] {
  const quotes = world.market.quotes(symbol)
  const events = world.stored.streams.get(`${symbol} bookTicker 0`)?.events
  const stored = new Set(events?.map(({ id }) => id))
  const windows = [...world.ledger.values()].filter(
    (gap) => gap.symbol === symbol && gap.event_type === 'bookTicker',
  )
  const lost: string[] = []
  const isStored = ({ id }: TrueQuote) => stored.has(id)
  const first = Math.max(0, quotes.findIndex(isStored))
  // An outage is recorded when the next quote arrives.
  const last = Math.max(0, quotes.findLastIndex(isStored))
  let beforeMs = 0
  for (const [at, quote] of quotes.slice(first, last).entries()) {
    const { id, timeMs, fate } = quote
    if (isStored(quote)) beforeMs = timeMs
    if (isStored(quote) || isExcused(fate, world.exchange.stalls)) continue
    const afterMs = quotes.find((one, i) => i > first + at && isStored(one))?.timeMs ?? 0
    // In the machine's clock at any moment of the outage; the window was recorded at its end.
    const clocks = world.wall
      .settingsBetween(beforeMs, afterMs + LAG_MS)
      .map(({ aheadMs }) => timeMs + aheadMs)
    const isOf = ({ from_time, to_time, detected_at }: Gap) =>
      clocks.some((ms) => (from_time ?? 0) - LAG_MS <= ms && ms <= (to_time ?? 0)) &&
      world.wall.whenShown(detected_at).some((ms) => beforeMs <= ms && ms <= afterMs + ENTERED_WITHIN_MS)
    if (!windows.some(isOf)) lost.push(`${id} of ${timeMs} (${fate})`)
  }
  return lost.length === 0
    ? []
    : [`G2 ${symbol}: quotes lost and in no outage: ${lost.length}, ${lost.slice(0, 3).join(', ')}`]
}

function isExcused(fate: number, stalls: StallWatch): boolean {
  // If one connection lost it, another, perhaps of a process that then ended, need not have
  // delivered it to Kafka.
  if (fate === FATE.dropped || fate === FATE.sentAndDropped) return true
  const stall = stalls.all.get(fate - FATE.stalled)
  return stall !== undefined && stall.noticedAtMs === null
}

/** G3: no event is stored twice by one instance, unless a leader had forgotten it or its producer. */
function once({ symbol, type, epoch, events }: StoredStream): string[] {
  const seen = new Map<string, StoredEvent>()
  const twice: string[] = []
  for (const event of events) {
    const ids = `${event.firstId}..${event.id}`
    const before = seen.get(ids)
    if (before?.incarnation === event.incarnation && before.excuses.size === 0) twice.push(ids)
    seen.set(ids, event)
  }
  return twice.length === 0
    ? []
    : [`G3 ${symbol} ${type} ${epoch}: twice in the life of an instance: ${twice.slice(0, 5)}`]
}

/** G4: in the order of ids, or for late events in the order of receipt, whatever the clock showed. */
function order({ wall }: World, { symbol, type, epoch, events }: StoredStream): string[] {
  const wrong: string[] = []
  const last = new Map<number, StoredEvent>()
  for (const event of events) {
    if (event.isBackfilled || event.excuses.size > 0) continue
    const before = last.get(event.incarnation)
    last.set(event.incarnation, event)
    if (before === undefined || event.id >= before.id) continue
    if (Math.max(...wall.whenShown(event.receiptMs)) < Math.min(...wall.whenShown(before.receiptMs)))
      wrong.push(`${event.id} after ${before.id}`)
  }
  return wrong.length === 0
    ? []
    : [`G4 ${symbol} ${type} ${epoch}: neither in order of id nor of receipt: ${wrong.slice(0, 5)}`]
}

/** W1, W2, W4: a stall is detected in time, and there is no needless resubscription. */
function stalls({ exchange }: World): string[] {
  const late = [...exchange.stalls.all.values()].filter(
    ({ firstStruckMs, lastStruckMs, noticedAtMs }) =>
      (noticedAtMs ?? lastStruckMs) - (firstStruckMs ?? lastStruckMs) > NOTICED_WITHIN_MS,
  )
  return [
    ...late.map(
      ({ fault, sinceMs }) =>
        `W1 the stall of ${fault.spec.stream ?? 'a connection'} at ${sinceMs} was not detected in time`,
    ),
    ...exchange.stalls.falseAlarms.map((alarm) => `W2 ${alarm}`),
  ]
}

/** R2, D2: where no frame is lost, no rollover enters anything into the ledger. */
function needlessRows({ options, ledger }: World): string[] {
  if (options.isLossless !== true) return []
  return [...ledger.values()].map(({ gap_id, cause }) => `R2 ${gap_id} (${cause}), but no frame was lost`)
}

function asRange({ from_id, to_id }: Gap): IdRange {
  return { from: from_id ?? 0, to: to_id ?? 0 }
}

function named(what: string, ranges: readonly IdRange[]): string[] {
  return ranges.length === 0
    ? []
    : [
        `${what}: ${countIds(ranges)} ids, ${JSON.stringify(ranges.slice(0, 3).map(({ from, to }) => [from, to]))}`,
      ]
}
