import { countText, plural } from '../../foundation/telemetry/plural.ts'
import type { Example, Finding, NotChecked, Report } from './report-types.ts'

/** Renders a report as text: figures, findings, unchecked parts, verdict. */
export function renderAudit(audit: Report): string {
  const failures = audit.findings.filter(({ severity }) => severity === 'failure')
  const notices = audit.findings.filter(({ severity }) => severity === 'notice')
  return [
    `Report of ${scopeText(audit)}, as stored at ${audit.takenAt}`,
    '',
    ...figures(audit),
    ...bookLines(audit),
    ...comparedLines(audit),
    ...section('Failures', failures.flatMap(findingLines)),
    ...section('Notices', [...notices.flatMap(findingLines), ...outageLines(audit)]),
    ...section('Pending in Kafka, not in this report', pendingLines(audit)),
    ...section('Not checked', notCheckedLines(audit.notChecked)),
    '',
    verdict(audit, failures),
  ].join('\n')
}

function scopeText({ scope: { symbols, from, to } }: Report): string {
  const what = symbols === null ? 'everything' : symbols.join(', ')
  return `${what}${from === null ? '' : ` from ${from}`}${to === null ? '' : ` until ${to}`}`
}

function verdict({ verdict, watermark }: Report, failures: readonly Finding[]): string {
  const pending =
    watermark.pending !== null && watermark.pending > 0
      ? ` ${plural(watermark.pending, 'message')} ${watermark.pending === 1 ? 'is' : 'are'} not stored yet.`
      : ''
  switch (verdict) {
    case 'clean':
      return `Verdict: clean. No unexplained gaps, no duplicates, no mismatches.${pending}`
    case 'not clean':
      return `Verdict: NOT CLEAN, ${plural(failures.length, 'finding')}.${pending}`
    case 'empty':
      return `Verdict: nothing is stored, so nothing was audited.${pending}`
  }
}

/** Columns of the figures; counts of quotes have the same names. */
const IDS = { 'first id': 'firstId', 'last id': 'lastId' } as const
const COUNTS = {
  rows: 'rows',
  missing: 'missing',
  explained: 'explained',
  doubled: 'doubled',
  unexplained: 'unexplained',
} as const

function figures({ sequences, quotes }: Report): string[] {
  const counts = Object.values(COUNTS)
  return table([
    ['symbol', 'type', ...Object.keys(IDS), ...Object.keys(COUNTS)],
    ...sequences.map((one) => [
      ...[one.symbol, typeOf(one)],
      ...Object.values(IDS).map((field) => String(one[field])),
      ...counts.map((field) => countText(one[field])),
    ]),
    ...quotes.map((one) => [
      ...[one.symbol, 'bookTicker', '', ''],
      ...counts.map((field) => (field === 'rows' || field === 'doubled' ? countText(one[field]) : '')),
    ]),
  ])
}

/** The ids of a type restart with each epoch. */
function typeOf({ eventType, epoch }: Pick<Finding, 'eventType' | 'epoch'>): string {
  return `${eventType}${epoch === null || epoch === 0 ? '' : ` (epoch ${epoch})`}`
}

function bookLines({ books }: Report): string[] {
  if (books.length === 0) return []
  const share = (part: number, all: number) => (all === 0 ? '' : `${((100 * part) / all).toFixed(1)} %`)
  const rows = books.map(({ symbol, epoch, ...book }) => [
    ...[symbol, typeOf({ eventType: 'depth', epoch })],
    ...[book.changes, book.comparedTops, book.unknownTops, book.quotes].map(countText),
    share(book.detectableQuotes, book.quotes),
    ...[book.comparedSnapshots, book.comparedLevels, book.comparedKeyframes].map(countText),
  ])
  return ['', 'Order books compared with quotes and snapshots:', ...table([BOOK_COLUMNS, ...rows])]
}

/** The share is that of the quotes whose absence would show. */
const BOOK_COLUMNS = [
  ...['symbol', 'type', 'changes', 'compared', 'unknown', 'quotes', 'detectable'],
  ...['snapshots', 'levels', 'keyframes'],
]

function comparedLines({ compared }: Report): string[] {
  return compared === null ? [] : ['', `Compared with the exchange: ${plural(compared, 'row')}`]
}

function section(title: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : ['', `${title}:`, ...lines.map((line) => `  ${line}`)]
}

function findingLines({ symbol, eventType, epoch, count, summary, examples }: Finding): string[] {
  const type = eventType === null ? '' : ` ${typeOf({ eventType, epoch })}`
  return [
    `${symbol === null ? '' : `${symbol}${type}: `}${count === null ? '' : `${countText(count)} `}${summary}`,
    ...exampleLines(examples, count ?? 0),
  ]
}

/** Symbols that a line names. */
const SYMBOLS_SHOWN = 5

/** One line for all symbols with the same text: hundreds of lines would say the same. */
function notCheckedLines(all: readonly NotChecked[]): string[] {
  const same = Map.groupBy(all, ({ what, symbol, count, examples }) =>
    symbol === null || count === null || examples.length > 0 ? Symbol() : what,
  )
  return [...same.values()].flatMap((group) => {
    const [first] = group
    if (first === undefined) return []
    if (group.length > 1) return [groupLine(first.what, group)]
    const { what, symbol, count, examples } = first
    const subject = [symbol, count === null ? null : countText(count)]
      .filter((part) => part !== null)
      .join(': ')
    return [`${subject}${subject === '' ? '' : ' '}${what}`, ...exampleLines(examples, count ?? 0)]
  })
}

/** The number of all symbols, and those with the most. */
function groupLine(what: string, group: readonly NotChecked[]): string {
  const countOf = ({ count }: NotChecked) => count ?? 0
  const all = group.reduce((sum, one) => sum + countOf(one), 0)
  const most = group.toSorted((one, other) => countOf(other) - countOf(one)).slice(0, SYMBOLS_SHOWN)
  const shown = most.map((one) => `${one.symbol} ${countText(countOf(one))}`)
  const rest = group.length - most.length
  const more = rest === 0 ? '' : ` and ${plural(rest, 'other symbol')}`
  return `${shown.join(', ')}${more}: ${countText(all)} ${what}`
}

/** Shows ids without details in one line. */
function exampleLines(examples: readonly Example[], count: number): string[] {
  const ids = ({ from, to }: Example) => (from === to ? `${from ?? ''}` : `${from}..${to}`)
  const shown = examples.reduce(
    (sum, { from, to }) => sum + (from === null || to === null ? 1 : to - from + 1),
    0,
  )
  const more = shown < count && examples.length < count ? ['…'] : []
  if (examples.every(({ detail }) => detail === ''))
    return examples.length === 0 ? [] : [`  ${[...examples.map(ids), ...more].join(', ')}`]
  return [
    ...examples.map((example) => `  ${`${ids(example)} ${example.detail}`.trim()}`),
    ...more.map((m) => `  ${m}`),
  ]
}

function outageLines({ outages }: Report): string[] {
  return outages.flatMap(({ symbol, windows, seconds, longest }) => [
    `${symbol} bookTicker: ${plural(windows, 'outage')} in the ledger, ${seconds.toFixed(3)} s in all; the longest:`,
    ...longest.map(
      ({ from, to, seconds, cause }) => `  ${from} to ${to}, ${seconds.toFixed(3)} s (${cause})`,
    ),
  ])
}

function pendingLines({ watermark: { notReached, partitions } }: Report): string[] {
  if (notReached !== null) return [`unknown: Kafka was not reached (${notReached})`]
  // Partitions that never had a message are omitted.
  const used = partitions.filter(({ stored, end }) => (stored ?? 0) > 0 || (end ?? 0) > 0)
  if (used.length === 0) return []
  const rows = used.map(({ topic, partition, stored, end, pending }) => [
    topic,
    String(partition),
    stored === null ? 'nothing' : String(stored),
    String(end),
    String(pending),
  ])
  return table([['topic', 'partition', 'stored', 'end', 'pending'], ...rows])
}

/** Pads columns to their widest cell. The first two are left-aligned, the others right-aligned. */
function table(rows: readonly string[][]): string[] {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? '').length)),
  )
  return rows.map((row) =>
    row
      .map((cell, column) =>
        column < 2 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join('  ')
      .trimEnd(),
  )
}
