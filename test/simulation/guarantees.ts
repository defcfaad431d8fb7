import { countIds, subtract } from '../../src/market/id-ranges.ts'
import { ledgerOf, type World } from './world.ts'

/** What does not hold of a world that has come to rest, a sentence each; cites the guarantees of the specification. */
export function violations(world: World): string[] {
  return [...completeness(world), ...outages(world), ...once(world), ...conservation(world)]
}

interface StoredEvent {
  readonly stream: string
  readonly id: number
  readonly incarnation: number
  readonly backfilled: boolean
}

function storedEvents(world: World): StoredEvent[] {
  return ['t', 'b'].flatMap((topic) =>
    (world.logs.get(topic) ?? []).map(({ value, incarnation }) => {
      const { e = 'bookTicker', s, t, a, u, source } = JSON.parse(value.toString())
      return {
        stream: `${s} ${e}`,
        id: e === 'trade' ? t : e === 'aggTrade' ? a : u,
        incarnation,
        backfilled: source === 'backfill',
      }
    }),
  )
}

/** G1 and G6: every id from the first stored on is stored or in a gap that is not filled; filled means stored. */
function completeness(world: World): string[] {
  const ledger = ledgerOf(world)
  const byStream = Map.groupBy(storedEvents(world), ({ stream }) => stream)
  return [...byStream].flatMap(([stream, events]) => {
    const [symbol, type] = stream.split(' ')
    if (type === 'bookTicker') return []
    const stored = events.map(({ id }) => ({ from: id, to: id }))
    const first = events.reduce((lowest, { id }) => Math.min(lowest, id), Number.POSITIVE_INFINITY)
    const last = world.truth.reduce(
      (highest, one) => (one.symbol === symbol && one.type === type ? one.id : highest),
      0,
    )
    const ranges = (status: (text: string) => boolean) =>
      ledger
        .filter((gap) => gap.symbol === symbol && gap.event_type === type && status(gap.status))
        .map(({ from_id, to_id }) => ({ from: from_id ?? 0, to: to_id ?? 0 }))
    const missing = subtract([{ from: first, to: last }], stored)
    const unexplained = subtract(
      missing,
      ranges((status) => status !== 'filled'),
    )
    const lied = subtract(
      ranges((status) => status === 'filled'),
      stored,
    )
    const open = ranges((status) => status === 'open')
    return [
      ...(unexplained.length > 0
        ? [`G1 ${stream}: ${JSON.stringify(unexplained)} neither stored nor in the ledger`]
        : []),
      ...(lied.length > 0 ? [`G6 ${stream}: ${JSON.stringify(lied)} said to be filled and not stored`] : []),
      ...(open.length > 0
        ? [`G1 ${stream}: ${countIds(open)} ids still sought after 20 minutes of rest`]
        : []),
    ]
  })
}

/** G2: a quote that is not stored was dropped on an open connection, or lies in an outage that the ledger names. */
function outages(world: World): string[] {
  const stored = new Set(storedEvents(world).map(({ stream, id }) => `${stream} ${id}`))
  const windows = ledgerOf(world).filter(({ event_type }) => event_type === 'bookTicker')
  const first = new Map<string, number>()
  return world.truth.flatMap(({ symbol, type, id, timeMs, dropped }) => {
    if (type !== 'bookTicker') return []
    if (stored.has(`${symbol} bookTicker ${id}`)) {
      if (!first.has(symbol)) first.set(symbol, timeMs)
      return []
    }
    // What was before the first stored quote was before our time.
    if (dropped || !first.has(symbol)) return []
    const named = windows.some(
      (gap) => gap.symbol === symbol && (gap.from_time ?? 0) <= timeMs + 1000 && timeMs <= (gap.to_time ?? 0),
    )
    return named ? [] : [`G2 ${symbol}: quote ${id} of ${timeMs} is lost and in no outage`]
  })
}

/** G3: no event twice within the life of an instance. */
function once(world: World): string[] {
  const seen = new Set<string>()
  return storedEvents(world).flatMap(({ stream, id, incarnation }) => {
    const key = `${stream} ${id} ${incarnation}`
    if (seen.has(key)) return [`G3 ${stream}: ${id} twice in the life of instance ${incarnation}`]
    seen.add(key)
    return []
  })
}

/** G5: every frame in one counter. */
function conservation(world: World): string[] {
  return world.counters.flatMap(({ received, forwarded, duplicate, control, ignored, rejected, held }) =>
    received === forwarded + duplicate + control + ignored + rejected + held
      ? []
      : ['G5 frames are not conserved'],
  )
}
