import type { Gap } from '../../src/foundation/market/gap.ts'
import { countIds, type IdRange, subtract } from '../../src/foundation/market/id-ranges.ts'
import { FATE } from './fates.ts'
import type { TrueSequence } from './market.ts'
import { wrongReceipts } from './receipts.ts'
import type { StallWatch } from './stalls.ts'
import type { StoredStream } from './stored-events.ts'
import type { World } from './world.ts'

/** The latest arrival after sending: delays of all kinds together. */
const LAG_MS = 5000

/** A window counts only if it was recorded this soon after its outage. */
const ENTERED_WITHIN_MS = 900_000

/**
 * A stall of a single stream is detected within this time while others deliver, in these markets.
 */
const NOTICED_WITHIN_MS = 900_000

/**
 * Returns the violations of a run that is quiet, one sentence each, with clauses of the
 * specification.
 */
export function violations(world: World): string[] {
  return [
    ...world.complaints,
    ...world.kafka.cluster.complaints,
    ...world.exchange.complaints,
    ...world.rest.complaints,
    ...world.stored.corrupt,
    ...world.market.sequences.flatMap((sequence) => completeness(world, sequence)),
    ...world.market.symbols.flatMap((symbol) => outages(world, symbol)),
    ...[...world.stored.streams.values()].flatMap((stream) => [...once(stream), ...order(world, stream)]),
    ...wrongReceipts(world),
    ...stalls(world),
  ]
}

/**
 * G1 and G6: every id from the first stored one on is stored or in a gap that is not filled; filled
 * ids are stored.
 */
function completeness(world: World, sequence: TrueSequence): string[] {
  const { symbol, type, epoch } = sequence
  const name = `${symbol} ${type} ${epoch}`
  const stored = world.stored.streams.get(name)?.ids ?? []
  if (stored.length === 0) return []
  const present = rangesOf(stored)
  const gaps = [...world.ledger.values()].filter(
    (gap) => gap.symbol === symbol && gap.event_type === type && gap.epoch === epoch && gap.from_id !== null,
  )
  const ranges = (status: Gap['status']) => gaps.filter((gap) => gap.status === status).map(asRange)
  const isListed = world.listed.has(symbol) && epoch === 0
  const first = isListed ? sequence.firstId : (present[0]?.from ?? 0)
  const last = sequence.firstId + sequence.timesMs.length - 1
  const isOver = world.market.current(symbol, type) !== sequence
  // Ids of an ended sequence that the exchange never sent are after the last forwarded one.
  const known = isOver ? (present.at(-1)?.to ?? 0) : last
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
  if (isOver) return [all]
  const neverWere = { from: 0, to: sequence.firstId - 1 }
  const holes = world.exchange.book
    .active('restHole')
    .filter(({ spec }) => spec.symbol === sequence.symbol && spec.ids === sequence.type)
  return [neverWere, ...holes.map(({ spec }) => ({ from: spec.fromId, to: spec.toId }))]
}

/**
 * G2: a quote that is not stored was lost undetectably on an open connection, or lies in an outage
 * of the ledger.
 */
function outages(world: World, symbol: string): string[] {
  const { ids, timesMs, fates } = world.market.quotes(symbol)
  const stored = new Set(world.stored.streams.get(`${symbol} bookTicker 0`)?.ids)
  const windows = [...world.ledger.values()]
    .filter((gap) => gap.symbol === symbol && gap.event_type === 'bookTicker')
    .map(({ from_time, to_time, detected_at }) => ({
      from: (from_time ?? 0) - LAG_MS,
      to: to_time ?? 0,
      enteredMs: detected_at,
    }))
  const lost: string[] = []
  const first = ids.findIndex((id) => stored.has(id))
  // An outage is recorded when the next quote arrives.
  const last = ids.findLastIndex((id) => stored.has(id))
  let beforeMs = 0
  for (let i = Math.max(0, first); i < last; i++) {
    const id = ids[i] ?? 0
    const timeMs = timesMs[i] ?? 0
    if (stored.has(id)) beforeMs = timeMs
    if (stored.has(id) || isExcused(fates[i] ?? 0, world.exchange.stalls)) continue
    const afterMs = timesMs[ids.findIndex((one, at) => at > i && stored.has(one))] ?? 0
    // In the machine's clock at any moment of the outage; the window was recorded at its end.
    const clocks = world.wall.settingsBetween(beforeMs, afterMs + LAG_MS).map(({ aheadMs }) => aheadMs)
    const isOf = ({ from, to, enteredMs }: (typeof windows)[number]) =>
      clocks.some((aheadMs) => from <= timeMs + aheadMs && timeMs + aheadMs <= to) &&
      world.wall.whenShown(enteredMs).some((atMs) => beforeMs <= atMs && atMs <= afterMs + ENTERED_WITHIN_MS)
    if (!windows.some(isOf)) lost.push(`${id} of ${timeMs} (${fates[i]})`)
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

/**
 * G3: no event is stored twice by one instance, unless a leader had forgotten it or its producer.
 */
function once({ symbol, type, epoch, ids, incarnations, excuses }: StoredStream): string[] {
  const seen = new Map<number, number>()
  const twice: number[] = []
  for (const [i, id] of ids.entries()) {
    const before = seen.get(id)
    if (before !== undefined && incarnations[before] === incarnations[i] && excuses[before]?.size === 0)
      twice.push(id)
    seen.set(id, i)
  }
  return twice.length === 0
    ? []
    : [`G3 ${symbol} ${type} ${epoch}: twice in the life of an instance: ${twice.slice(0, 5)}`]
}

/**
 * G4: in the order of ids, or for late events in the order of receipt, whatever the clock showed.
 */
function order({ wall }: World, stream: StoredStream): string[] {
  const { symbol, type, epoch, ids, receiptsUs, incarnations, backfilled, excuses } = stream
  const receivedMs = (at: number) => wall.whenShown((receiptsUs[at] ?? 0) / 1000)
  const wrong: string[] = []
  const last = new Map<number, number>()
  for (const [i, id] of ids.entries()) {
    if (backfilled[i] === true || excuses[i]?.size !== 0) continue
    const incarnation = incarnations[i] ?? 0
    const before = last.get(incarnation)
    last.set(incarnation, i)
    if (before === undefined || id >= (ids[before] ?? 0)) continue
    if (Math.max(...receivedMs(i)) < Math.min(...receivedMs(before))) wrong.push(`${id} after ${ids[before]}`)
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

function asRange({ from_id, to_id }: Gap): IdRange {
  return { from: from_id ?? 0, to: to_id ?? 0 }
}

function rangesOf(ids: readonly number[]): IdRange[] {
  const ranges: Array<{ from: number; to: number }> = []
  for (const id of Float64Array.from(ids).sort()) {
    const last = ranges.at(-1)
    if (last !== undefined && id <= last.to + 1) last.to = id
    else ranges.push({ from: id, to: id })
  }
  return ranges
}

function named(what: string, ranges: readonly IdRange[]): string[] {
  return ranges.length === 0
    ? []
    : [
        `${what}: ${countIds(ranges)} ids, ${JSON.stringify(ranges.slice(0, 3).map(({ from, to }) => [from, to]))}`,
      ]
}
