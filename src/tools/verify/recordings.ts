import { type StreamType, similarTo, TRADE_TYPES } from '../../foundation/market/event.ts'
import type { Recording } from '../../foundation/market/recording.ts'
import { readRecordings } from '../../foundation/store/meta.ts'
import { counted } from '../../foundation/telemetry/plural.ts'
import { type Announced, announcedPeriods, type Period } from './announced.ts'
import { finding, type Remark, unchecked } from './findings.ts'
import type { Quotes } from './quotes.ts'
import type { Finding } from './report-types.ts'
import type { CheckContext } from './scope.ts'
import type { Sequence } from './sequences.ts'

/** Trades and their aggTrades arrive together, and quotes change with every trade. */
const TOGETHER_MS = 10 * 60_000

/** A symbol may be quiet for a while. */
const QUIET_MS = 60 * 60_000

/** Symbols of which the exchange was not asked are all counted, and so many are named. */
const NAMED_MAX = 5

/** Time of the last row of each type; absent if none is stored. */
type LastTimes = Partial<Record<StreamType, number>>

interface RecordingsInput {
  /** A stream that ends before this time has ended. */
  readonly storedUntilMs: number
  /** Whether a comparison with the exchange follows. */
  readonly asksExchange: boolean
  /** Whether the changes of order books are audited. */
  readonly includesDepth: boolean
}

/**
 * Compares stored rows with what ingestion announced. A stream that never delivered, or stopped
 * delivering, leaves no gap between ids.
 * @param quotesFromMs start of the retention, or of the scope, for quotes; null if there is none
 */
export async function checkRecordings(
  { connection, scope }: CheckContext,
  quotesFromMs: number | null,
  sequences: readonly Sequence[],
  quotes: readonly Quotes[],
  { storedUntilMs, asksExchange, includesDepth }: RecordingsInput,
): Promise<Remark[]> {
  const recordings = await readRecordings(connection)
  if (recordings.length === 0) return [NO_ANNOUNCEMENT]
  const lasts = lastTimes(sequences, quotes)
  const newestMs = Math.max(0, ...[...lasts.values()].flatMap((types) => Object.values(types)))
  const range = { fromMs: scope.fromMs ?? 0, toMs: Math.min(scope.toMs ?? newestMs, newestMs) }
  const ofSymbols = [...recordedUntil(announcedPeriods(recordings, range))].flatMap(([symbol, types]) => {
    if (scope.symbols !== null && !scope.symbols.includes(symbol)) return []
    const last = lasts.get(symbol) ?? {}
    const traded = lastTraded(last)
    // A rare type may have no event for months.
    for (const type of types.keys()) if (similarTo(type) === null) types.delete(type)
    if (!includesDepth) types.delete('depth')
    // Quotes come with trades, so without later trades there may be none.
    const isBefore = quotesFromMs !== null && traded > 0 && traded - quotesFromMs < TOGETHER_MS
    for (const type of ['bookTicker', 'depth'] as const)
      if (isBefore && last[type] === undefined) types.delete(type)
    return types.size === 0 ? [] : ofSymbol(symbol, types, last, storedUntilMs)
  })
  const silent = new Set(
    ofSymbols.flatMap(({ severity, symbol }) => (severity === 'notice' ? [symbol ?? ''] : [])),
  )
  return [
    ...differing('sources', 'exchanges', recordings, ({ source }) => source),
    ...differing('time units', 'time units', recordings, ({ time_unit }) => time_unit),
    ...differing('topics', 'topics', recordings, ({ topics: { trades, bookTicker, gaps } }) =>
      [trades, bookTicker, gaps].join(', '),
    ),
    ...differing('topics', 'depth topics', recordings, ({ topics }) => topics.depth ?? null),
    ...ofSymbols,
    ...(silent.size === 0 || asksExchange ? [] : [notAsked([...silent])]),
  ]
}

const NO_ANNOUNCEMENT = unchecked(
  'streams that never delivered or ended: the database has no announcement of what is recorded',
)

function notAsked(symbols: readonly string[]): Remark {
  const examples = symbols.slice(0, NAMED_MAX).map((symbol) => ({ from: null, to: null, detail: symbol }))
  return unchecked(
    `${counted(symbols.length, 'symbol')} that ended, or of which nothing is stored: only --exchange tells whether the exchange has trades`,
    { count: symbols.length, examples },
  )
}

/** A deployment has one value of each. */
function differing(
  kind: string,
  name: string,
  recordings: readonly Recording[],
  of: (recording: Recording) => string | null,
): Remark[] {
  const values = [...new Set(recordings.flatMap((one) => of(one) ?? []))]
  if (values.length < 2) return []
  return [about(kind, 'failure', null, null, `rows come from several ${name}: ${values.join('; ')}`)]
}

function lastTimes(sequences: readonly Sequence[], quotes: readonly Quotes[]): Map<string, LastTimes> {
  const lasts = new Map<string, LastTimes>()
  const note = (symbol: string, type: StreamType, time: string) => {
    const known = lasts.get(symbol) ?? {}
    lasts.set(symbol, { ...known, [type]: Math.max(known[type] ?? 0, Date.parse(time)) })
  }
  for (const { symbol, eventType, lastTime } of sequences) note(symbol, eventType, lastTime)
  for (const { symbol, lastAt } of quotes) note(symbol, 'bookTicker', lastAt)
  return lasts
}

/** The types of each symbol that were recorded for a while, each with its end. */
function recordedUntil(announced: Announced): Map<string, Map<StreamType, number>> {
  const isLong = ({ fromMs, toMs }: Period) => toMs - fromMs >= TOGETHER_MS
  return new Map(
    [...announced].map(([symbol, types]) => [
      symbol,
      new Map(
        [...types].flatMap(([type, periods]) =>
          periods.some(isLong) ? [[type, Math.max(...periods.map(({ toMs }) => toMs))] as const] : [],
        ),
      ),
    ]),
  )
}

/** @param types with the end of each recording */
function ofSymbol(
  symbol: string,
  types: ReadonlyMap<StreamType, number>,
  last: LastTimes,
  storedUntilMs: number,
): Remark[] {
  const absent = [...types.keys()].filter((type) => last[type] === undefined)
  if (absent.length === types.size)
    return [about('silent', 'notice', symbol, null, 'was recorded, but nothing is stored')]
  const traded = lastTraded(last)
  const newest = Math.max(traded, last.bookTicker ?? 0)
  const untilMs = Math.max(...types.values())
  const ended = [...types].flatMap(([type, untilMs]) =>
    Math.min(traded, untilMs, storedUntilMs) - (last[type] ?? traded) > TOGETHER_MS ? [type] : [],
  )
  const quiet = `ends at ${iso(newest)}, but was recorded until ${iso(untilMs)}`
  const [kind, severity] = traded > 0 ? (['absent', 'failure'] as const) : (['silent', 'notice'] as const)
  return [
    ...absent.map((type) => about(kind, severity, symbol, type, 'was recorded, but no row is stored')),
    ...ended.map((type) =>
      about('ended', 'failure', symbol, type, `ends at ${iso(last[type])}, but trades end at ${iso(traded)}`),
    ),
    ...(Math.min(untilMs, storedUntilMs) - newest > QUIET_MS
      ? [about('ended', 'notice', symbol, null, quiet)]
      : []),
  ]
}

/** The time of the last trade; 0 if none is stored. */
function lastTraded(last: LastTimes): number {
  return Math.max(...TRADE_TYPES.map((type) => (similarTo(type) === null ? 0 : (last[type] ?? 0))))
}

function iso(ms = 0): string {
  return new Date(ms).toISOString()
}

function about(
  kind: string,
  severity: Finding['severity'],
  symbol: string | null,
  eventType: StreamType | null,
  summary: string,
): Remark {
  return finding({ check: 'recordings', kind, severity, symbol, eventType, summary })
}
