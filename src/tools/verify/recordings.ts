import type { EventType } from '../../foundation/market/event.ts'
import type { Recording } from '../../foundation/market/recording.ts'
import { readRecordings } from '../../foundation/store/recordings.ts'
import type { Finding, QuotesReport, Watermark } from './report-types.ts'
import type { CheckContext, Scope } from './scope.ts'
import type { Sequence } from './sequences.ts'

/** Trades and their aggTrades arrive together, and quotes change with every trade. */
const TOGETHER_MS = 10 * 60_000

/** A symbol may be quiet for a while. */
const QUIET_MS = 60 * 60_000

/** With more pending messages in Kafka, one topic may be stored further than another. */
const PENDING_MAX = 1000

/** Time of the last row of each type; absent if none is stored. */
type LastTimes = Partial<Record<EventType, number>>

/**
 * Compares stored rows with what ingestion announced. A stream that never delivered, or stopped
 * delivering, leaves no gap between ids.
 *
 * @param quotesFromMs start of the retention, or of the scope, for quotes; null if there is none
 */
export async function checkRecordings(
  { connection, scope }: CheckContext,
  quotesFromMs: number | null,
  sequences: readonly Sequence[],
  quotes: ReadonlyArray<Omit<QuotesReport, 'doubled'>>,
  watermark: Watermark,
): Promise<Finding[]> {
  const recordings = await readRecordings(connection)
  const lasts = lastTimes(sequences, quotes)
  const newestMs = Math.max(0, ...[...lasts.values()].flatMap((types) => Object.values(types)))
  const announced = announcedIn(recordings, scope, newestMs)
  const isStored = (watermark.pending ?? 0) <= PENDING_MAX
  return [
    ...differing('sources', 'exchanges', recordings, ({ source }) => source),
    ...differing('time units', 'time units', recordings, ({ time_unit }) => time_unit),
    ...differing('topics', 'topics', recordings, ({ topics }) => Object.values(topics).join(', ')),
    ...[...announced].flatMap(([symbol, types]) => {
      if (scope.symbols !== null && !scope.symbols.includes(symbol)) return []
      const last = lasts.get(symbol) ?? {}
      const traded = Math.max(last.trade ?? 0, last.aggTrade ?? 0)
      // Quotes come with trades, so without later trades there may be none.
      const isBefore = quotesFromMs !== null && traded > 0 && traded - quotesFromMs < TOGETHER_MS
      if (isBefore && last.bookTicker === undefined) types.delete('bookTicker')
      return types.size === 0 ? [] : ofSymbol(symbol, types, last, isStored)
    }),
  ]
}

/** A deployment has one value of each. */
function differing(
  kind: string,
  name: string,
  recordings: readonly Recording[],
  of: (recording: Recording) => string,
): Finding[] {
  const values = [...new Set(recordings.map(of))]
  if (values.length < 2) return []
  return [finding(kind, 'failure', null, null, `rows come from several ${name}: ${values.join('; ')}`)]
}

function lastTimes(
  sequences: readonly Sequence[],
  quotes: ReadonlyArray<Omit<QuotesReport, 'doubled'>>,
): Map<string, LastTimes> {
  const lasts = new Map<string, LastTimes>()
  const note = (symbol: string, type: EventType, time: string) => {
    const known = lasts.get(symbol) ?? {}
    lasts.set(symbol, { ...known, [type]: Math.max(known[type] ?? 0, Date.parse(time)) })
  }
  for (const { symbol, eventType, lastTime } of sequences) note(symbol, eventType, lastTime)
  for (const { symbol, lastAt } of quotes) note(symbol, 'bookTicker', lastAt)
  return lasts
}

/**
 * The types of each symbol that were recorded for a while in the scope, each with its end, which is
 * at most the time of the newest row.
 */
function announcedIn(
  recordings: readonly Recording[],
  scope: Scope,
  newestMs: number,
): Map<string, Map<EventType, number>> {
  const announced = new Map<string, Map<EventType, number>>()
  for (const [at, recording] of recordings.entries()) {
    const next = recordings.slice(at + 1).find(({ shard }) => shard === recording.shard)
    const fromMs = Math.max(recording.at, scope.fromMs ?? 0)
    const toMs = Math.min(next?.at ?? newestMs, scope.toMs ?? newestMs, newestMs)
    for (const symbol of recording.symbols) {
      const types = announced.get(symbol) ?? new Map<EventType, number>()
      for (const type of recording.event_types) {
        const untilMs = types.get(type)
        if (untilMs !== undefined || toMs - fromMs >= TOGETHER_MS)
          types.set(type, Math.max(untilMs ?? 0, toMs))
      }
      announced.set(symbol, types)
    }
  }
  return announced
}

/**
 * @param types the end of the recording of each type
 * @param isStored false if rows may still be on their way
 */
function ofSymbol(
  symbol: string,
  types: ReadonlyMap<EventType, number>,
  last: LastTimes,
  isStored: boolean,
): Finding[] {
  const absent = [...types.keys()].filter((type) => last[type] === undefined)
  if (absent.length === types.size)
    return [finding('silent', 'notice', symbol, null, 'was recorded, but nothing is stored')]
  const hasTrades = last.trade !== undefined || last.aggTrade !== undefined
  const traded = Math.max(last.trade ?? 0, last.aggTrade ?? 0)
  const ended = [...types].flatMap(([type, untilMs]) =>
    Math.min(traded, untilMs) - (last[type] ?? traded) > TOGETHER_MS ? [type] : [],
  )
  const newest = Math.max(traded, last.bookTicker ?? 0)
  const untilMs = Math.max(...types.values())
  return [
    ...absent.map((type) =>
      hasTrades
        ? finding('absent', 'failure', symbol, type, 'was recorded, but no row is stored')
        : finding('silent', 'notice', symbol, type, 'was recorded, but no row is stored'),
    ),
    ...(isStored ? ended : []).map((type) =>
      finding(
        'ended',
        'failure',
        symbol,
        type,
        `ends at ${iso(last[type])}, but trades end at ${iso(traded)}`,
      ),
    ),
    ...(isStored && untilMs - newest > QUIET_MS
      ? [
          finding(
            'ended',
            'notice',
            symbol,
            null,
            `ends at ${iso(newest)}, but was recorded until ${iso(untilMs)}`,
          ),
        ]
      : []),
  ]
}

function iso(ms = 0): string {
  return new Date(ms).toISOString()
}

function finding(
  kind: string,
  severity: Finding['severity'],
  symbol: string | null,
  eventType: EventType | null,
  summary: string,
): Finding {
  return {
    check: 'recordings',
    kind,
    severity,
    symbol,
    eventType,
    epoch: null,
    count: null,
    summary,
    examples: [],
  }
}
