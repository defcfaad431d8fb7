import { declarationOf, EVENT_TYPES, type EventType } from '../../../foundation/market/event.ts'
import { countText, plural } from '../../../foundation/telemetry/plural.ts'
import {
  type ConsumerStatus,
  type IngestionStatus,
  type LatencySummary,
  totalLag,
} from '../../../foundation/telemetry/status.ts'
import {
  type ArchiveView,
  archivedTexts,
  archiveLine,
  archiveSummary,
  tableCountLines,
} from './archive-lines.ts'
import { noRows, type RowCounts, sum, type Totals } from './run-totals.ts'
import { clockText, msText, type Style } from './text-style.ts'

export interface PartView {
  readonly name: string
  readonly health: 'well' | 'waiting' | 'down'
  /** A few words: its address, or the problem. */
  readonly detail: string
}

export interface ProblemView {
  /** Time of day, UTC. */
  readonly time: string
  readonly from: string
  readonly level: 'warn' | 'error'
  readonly text: string
}

export interface ExchangeView {
  readonly name: string
  /** Its address, unless it is Binance's default address or was started by `up`. */
  readonly url: string | null
}

/** Everything that the display shows at one moment. */
export interface DisplayState {
  readonly source: ExchangeView
  readonly uptimeMs: number
  /** Milliseconds until it stops automatically; null when it does not. */
  readonly endsInMs: number | null
  readonly parts: readonly PartView[]
  readonly symbols: readonly string[]
  readonly ingestion: IngestionStatus | null
  readonly consumer: ConsumerStatus | null
  /** Null without a database. */
  readonly totals: Totals | null
  /** Null without an archive. */
  readonly archive: ArchiveView | null
  readonly restarts: number
  readonly problems: readonly ProblemView[]
}

const MOST_SYMBOLS = 12
const MOST_PROBLEMS = 3
/** With three symbols everything fits, with a line for the cursor. */
const TERMINAL_ROWS = 24
const TERMINAL_COLUMNS = 80
const COLUMN = 12
/** With order books there are more columns. */
const NARROW_COLUMN = 11

/** What a row of an order book is called; trades and quotes have the names of their types. */
const ROW_NAMES: Readonly<Partial<Record<EventType, string>>> = {
  depth: 'change',
  depthSnapshot: 'snapshot',
}

/** The display of a terminal, as lines. The caller cuts long ones. */
export function displayLines(state: DisplayState, style: Style): string[] {
  const { archive, totals } = state
  const lines = [
    ...titleLines(state, style),
    ...state.parts.map((part) => partLine(part, style)),
    '',
    ...(totals === null
      ? [
          style.dim('  no database: rows are only in the archive'),
          ...(archive === null ? [] : tableCountLines(archive)),
          '',
        ]
      : [...tableLines(totals, state.symbols, style), '', ...latencyLines(state, style)]),
    ...(archive === null ? [''] : []),
    queueLine(state, style),
    ...(archive === null ? [] : [archiveLine(archive)]),
  ]
  const room = TERMINAL_ROWS - lines.length - 2
  return [...lines, ...problemLines(state.problems, Math.max(1, Math.min(MOST_PROBLEMS, room)), style)]
}

/** The same in one line, for output that is not a terminal. */
export function plainLine(state: DisplayState): string {
  const down = state.parts.filter((part) => part.health !== 'well')
  return [
    clockText(state.uptimeMs),
    ...(state.totals === null ? [] : storedTexts(state, state.totals)),
    ...(state.archive === null ? [] : archivedTexts(state.archive)),
    ...down.map((part) => `${part.name}: ${part.detail}`),
  ].join('  ')
}

function storedTexts({ source, consumer }: DisplayState, totals: Totals): string[] {
  const { all, deadLettered, rowsPerSecond } = totals
  return [
    ...shownTypes(all).map((type) => plural(all[type], rowName(type))),
    `${countText(sum(rowsPerSecond.values()))} rows/s`,
    `event→row ${rangeText(eventToRow(source, consumer))}`,
    `lag ${lagText(consumer)}`,
    plural(deadLettered, 'dead letter'),
  ]
}

export function summaryLines(
  state: DisplayState,
  end: { readonly dataDir: string; readonly again: string },
  style: Style,
): string[] {
  const restarts = plural(state.restarts, 'restart')
  return [
    style.bold(`Stopped after ${clockText(state.uptimeMs)}.`),
    ...(state.totals === null
      ? [`From ${exchangeText(state.source)}, without a database.`, '', restarts]
      : storedSummary(state, state.totals, style)),
    ...(state.archive === null ? [] : archiveSummary(state.archive)),
    '',
    `The data is in ${end.dataDir}.`,
    `Continue with: ${style.bold(end.again)}`,
  ]
}

function storedSummary(state: DisplayState, totals: Totals, style: Style): string[] {
  const seconds = Math.max(1, state.uptimeMs / 1000)
  const rowsPerSecond = new Map(
    [...totals.rows].map(([symbol, counts]) => [symbol, sum(Object.values(counts)) / seconds]),
  )
  return [
    `Rows of this run, from ${exchangeText(state.source)}:`,
    '',
    ...tableLines({ ...totals, rowsPerSecond }, state.symbols, style),
    '',
    ...latencyLines(state, style),
    '',
    `${plural(totals.deadLettered, 'dead letter')} · ${plural(totals.alreadyThere, 'row')} already there · ${plural(state.restarts, 'restart')}`,
  ]
}

export function exchangeText({ name, url }: ExchangeView): string {
  const isOurs = /^(simulated|replay:)/.test(name)
  if (!isOurs) return url === null ? 'Binance, live' : `${name} at ${url}, live`
  const at = url === null ? '' : ` at ${url}`
  if (name.startsWith('simulated')) {
    return `${url === null ? 'the simulated' : 'a simulated'} exchange${at} (${name}), not Binance`
  }
  return `a recording${at} (${name})`
}

/** Two lines, since source and time do not fit in one line of 80 columns. */
function titleLines(state: DisplayState, style: Style): string[] {
  const ends = state.endsInMs === null ? 'Ctrl-C stops' : `stops in ${clockText(state.endsInMs)}`
  return [
    `${style.bold('tapeline')}  ${exchangeText(state.source)}`,
    style.dim(`  up ${clockText(state.uptimeMs)} · ${ends}`),
  ]
}

function partLine({ name, health, detail }: PartView, style: Style): string {
  const [mark, text] = {
    well: [style.good('●'), style.dim(detail)],
    waiting: [style.warn('○'), style.warn(detail)],
    down: [style.bad('✗'), style.bad(detail)],
  }[health]
  return `  ${mark} ${name.padEnd(10)} ${text}`
}

/** The types that are recorded by default, and those with rows. */
function shownTypes(all: RowCounts): EventType[] {
  return EVENT_TYPES.filter((type) => declarationOf(type).isDefault || all[type] > 0)
}

function rowName(type: EventType): string {
  return ROW_NAMES[type] ?? type
}

/** Rows per symbol and table. With too many symbols, only the busiest are shown. */
function tableLines(
  { rows, all, rowsPerSecond }: Totals,
  symbols: readonly string[],
  style: Style,
): string[] {
  const named = [...new Set([...symbols.filter((symbol) => symbol !== '*'), ...rows.keys()])]
  const rowsOf = (symbol: string) => rows.get(symbol) ?? noRows()
  const totalOf = (symbol: string) => sum(Object.values(rowsOf(symbol)))
  const busiest = named.toSorted((a, b) => totalOf(b) - totalOf(a)).slice(0, MOST_SYMBOLS)
  const shown = named.filter((symbol) => busiest.includes(symbol))
  const width = Math.max(9, ...shown.map((symbol) => symbol.length))
  const types = shownTypes(all)
  const heads = [...types.map((type) => `${rowName(type)}s`), 'rows/s']
  const isWide = 2 + width + heads.length * COLUMN <= TERMINAL_COLUMNS
  const widths = heads.map((head) => (isWide ? COLUMN : Math.max(NARROW_COLUMN, head.length + 1)))
  const row = (name: string, cells: readonly string[]) =>
    `  ${name.padEnd(width)}${cells.map((cell, i) => cell.padStart(widths[i] ?? 0)).join('')}`
  const counts = (of: RowCounts, rate: number) =>
    [...types.map((type) => of[type]), rate].map((count) => countText(count))
  const hidden = named.length - shown.length
  return [
    style.dim(row('', heads)),
    ...shown.map((symbol) => row(symbol, counts(rowsOf(symbol), rowsPerSecond.get(symbol) ?? 0))),
    ...(hidden > 0 ? [style.dim(`  and ${plural(hidden, 'more symbol')}`)] : []),
    style.bold(row('all', counts(all, sum(rowsPerSecond.values())))),
  ]
}

function latencyLines({ source, consumer }: DisplayState, style: Style): string[] {
  const line = (name: string, latency: LatencySummary | undefined) => {
    const [p50, p99] =
      latency === undefined || latency.count === 0 ? ['–', '–'] : [msText(latency.p50), msText(latency.p99)]
    return `  ${name.padEnd(21)}${p50.padStart(COLUMN)}${p99.padStart(COLUMN)}`
  }
  return [
    style.dim(`  ${'latency'.padEnd(21)}${'p50'.padStart(COLUMN)}${'p99'.padStart(COLUMN)}   last minute`),
    line('trade → row', eventToRow(source, consumer)),
    line('receipt → row', consumer?.receiptToRowMs),
  ]
}

/** For a recording there is no such latency, since its events happened when it was recorded. */
function eventToRow(source: ExchangeView, consumer: ConsumerStatus | null): LatencySummary | undefined {
  return source.name.startsWith('replay:') ? undefined : consumer?.eventToRowMs
}

function queueLine(state: DisplayState, style: Style): string {
  const counters = state.ingestion?.counters
  const inKafka = counters === undefined ? '–' : countText(counters.queued + counters.inFlight)
  const restarts = plural(state.restarts, 'restart')
  const texts = [
    ...(state.totals === null ? [] : [`Kafka lag ${lagText(state.consumer)}`]),
    `to Kafka ${inKafka}`,
    ...(state.totals === null ? [] : [deadText(state.totals, style)]),
    state.restarts === 0 ? restarts : style.warn(restarts),
  ]
  return `  ${texts.join(' · ')}`
}

function deadText({ deadLettered }: Totals, style: Style): string {
  const text = plural(deadLettered, 'dead letter')
  return deadLettered === 0 ? text : style.bad(text)
}

function problemLines(problems: readonly ProblemView[], most: number, style: Style): string[] {
  if (problems.length === 0) return []
  return [
    '',
    ...problems.slice(-most).map(({ time, from, level, text }) => {
      const colour = level === 'error' ? style.bad : style.warn
      return `  ${style.dim(time)} ${colour(`${from}: ${text}`)}`
    }),
  ]
}

function lagText(consumer: ConsumerStatus | null): string {
  if (consumer === null || consumer.partitions.length === 0) return '–'
  const lag = totalLag(consumer.partitions)
  return lag === null ? '–' : countText(lag)
}

function rangeText(latency: LatencySummary | undefined): string {
  if (latency === undefined || latency.count === 0) return '–'
  return `p50 ${msText(latency.p50)} p99 ${msText(latency.p99)}`
}
