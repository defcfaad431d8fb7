import { counted } from '../../foundation/telemetry/plural.ts'
import type { ConnectionView, GapView, Incident, Snapshot } from './page/snapshot.ts'

const KEPT = 200

/** Happened at the time of the observation, unless `atMs` is more exact. */
type Change = Pick<Incident, 'kind' | 'text'> & { readonly atMs?: number }
/** A snapshot without derived values. */
export type Seen = Omit<Snapshot, 'incidents' | 'problems' | 'moment' | 'streamsLeftOut'>

/** Detects incidents by comparing each observation with the previous one. */
export class Incidents {
  readonly #kept: Incident[] = []
  #before: Seen | null = null
  #number = 0

  /** @returns the incidents since the previous call */
  observe(now: Seen): Incident[] {
    const changes = this.#before === null ? [] : changesBetween(this.#before, now)
    // The last answer of the database stays valid while it is unavailable.
    this.#before = { ...now, stored: now.stored ?? this.#before?.stored ?? null }
    const incidents = changes
      .map((change) => ({ atMs: now.atMs, ...change }))
      .sort((a, b) => a.atMs - b.atMs)
      .map((incident) => ({ ...incident, number: ++this.#number }))
    this.#kept.push(...incidents)
    if (this.#kept.length > KEPT) this.#kept.splice(0, this.#kept.length - KEPT)
    return incidents
  }

  get kept(): readonly Incident[] {
    return this.#kept
  }
}

/** Current problems, one line each. */
export function problemsOf({ parts, streams, connections, unfilled, unknownBooks, stored }: Seen): string[] {
  const open = stored?.gapsByStatus['open'] ?? 0
  return [
    ...parts.flatMap(({ name, health, reason }) => (health === 'well' ? [] : [`${name}: ${reason}`])),
    ...streams.flatMap(({ stream, quiet }) => (quiet ? [`${stream} has gone quiet`] : [])),
    ...connections.flatMap((one) =>
      one.state === 'paused' ? [`${connectionText(one)} is paused: Kafka is slow`] : [],
    ),
    ...unfilled,
    ...(open > 0 && unfilled.length === 0
      ? [`${open} ${counted(open, 'gap is', 'gaps are')} being filled`]
      : []),
    ...unknownBooks,
  ]
}

function changesBetween(before: Seen, now: Seen): Change[] {
  return [ofParts, ofConnections, ofStreams, ofStored].flatMap((changesOf) => changesOf(before, now))
}

function ofParts(before: Seen, now: Seen): Change[] {
  return now.parts.flatMap(({ name, url, health, reason }): Change[] => {
    const was = before.parts.find((part) => part.name === name && part.url === url)
    if (was === undefined || was.health === health) return []
    return health === 'well' ? [good(`${name} has recovered`)] : [bad(`${name}: ${reason}`)]
  })
}

function ofConnections(before: Seen, now: Seen): Change[] {
  const isUp = (state: string) => state === 'streaming' || state === 'open'
  const was = new Map(before.connections.map((one) => [connectionText(one), one]))
  const is = new Map(now.connections.map((one) => [connectionText(one), one]))
  // The connections of a part that does not answer are unknown.
  const isAway = (name: string) => now.parts.some((part) => part.name === name && part.health === 'away')
  return [
    ...[...is].flatMap(([what, one]): Change[] => {
      const old = was.get(what)
      if (old === undefined) return [note(`${what} has been opened`)]
      if (isUp(old.state) === isUp(one.state)) return []
      return isUp(one.state)
        ? [good(`${what} is back`)]
        : [bad(`${what} is ${one.state === 'paused' ? 'paused' : 'down'}`)]
    }),
    ...[...was].flatMap(([what, { part }]) =>
      is.has(what) || isAway(part) ? [] : [note(`${what} has been replaced`)],
    ),
  ]
}

/** `connection 3`, or `connection 3 of ingestion 2` where there are several. */
function connectionText({ id, part }: ConnectionView): string {
  return part === 'ingestion' ? `connection ${id}` : `connection ${id} of ${part}`
}

function ofStreams(before: Seen, now: Seen): Change[] {
  const was = new Map(before.streams.map((one) => [one.stream, one]))
  return now.streams.flatMap(({ stream, quiet }): Change[] => {
    const old = was.get(stream)
    if (old === undefined || old.quiet === quiet) return []
    return quiet ? [bad(`${stream} has gone quiet`)] : [good(`${stream} flows again`)]
  })
}

function ofStored(before: Seen, now: Seen): Change[] {
  if (before.stored === null || now.stored === null) return []
  const was = new Map(before.stored.gaps.map((gap) => [gap.gapId, gap]))
  const gaps = now.stored.gaps.flatMap((gap): Change[] => {
    const old = was.get(gap.gapId)
    if (old?.status === gap.status) return []
    const what = gapText(gap)
    // If a gap was opened and closed between two observations, report both.
    const opened = old === undefined ? [bad(`${what}: a gap (${gap.cause})`, gap.detectedMs)] : []
    const closedMs = gap.closedMs ?? undefined
    if (gap.status === 'filled') return [...opened, good(`${what}: filled`, closedMs)]
    if (gap.status === 'unrecoverable') return [bad(`${what}: lost, ${gap.reason ?? gap.cause}`, closedMs)]
    return opened
  })
  // Older dead letters enter the list when others are resolved.
  const newestMs = Math.max(0, ...before.stored.deadLetters.map(({ failedMs }) => failedMs))
  const known = new Set(before.stored.deadLetters.map(({ place }) => place))
  const letters = now.stored.deadLetters.flatMap(({ place, reason, failedMs, resolvedMs }): Change[] =>
    known.has(place) || resolvedMs !== null || failedMs < newestMs
      ? []
      : [bad(`a dead letter, ${place}: ${reason}`, failedMs)],
  )
  return [...gaps, ...letters]
}

/** `BTCUSDT trade 5–29`, or the time window. */
function gapText({ symbol, eventType, fromId, toId, fromMs, toMs }: GapView): string {
  if (fromId !== null && toId !== null)
    return `${symbol} ${eventType} ${fromId === toId ? fromId : `${fromId}–${toId}`}`
  const seconds = fromMs !== null && toMs !== null ? ` for ${((toMs - fromMs) / 1000).toFixed(1)} s` : ''
  return `${symbol} ${eventType}${seconds}`
}

type Told = (text: string, atMs?: number) => Change
const told =
  (kind: Incident['kind']): Told =>
  (text, atMs) => ({ kind, text, ...(atMs !== undefined && { atMs }) })
const bad = told('bad')
const good = told('good')
const note = told('note')
