import type { SilenceFigures } from './acknowledgements.ts'
import type { ArchiveCheck } from './archived.ts'
import { bookLines } from './book-lines.ts'
import type { Figures } from './figures.ts'
import type { ChaosResult } from './result.ts'
import type { Slope } from './slopes.ts'

/** Renders a run's result for people. */
export function renderResult(result: ChaosResult): string {
  const { rows, ledger, kafka, quotes, comparedTrades, acknowledgements, stamps, memorySlopes } = result
  const counts = Object.entries(rows).map(([name, count]) => `${count} ${name}`)
  const total = Object.values(result.faults).reduce((sum, count) => sum + count, 0)
  return [
    '',
    ...table([
      ['fault', 'n', 'in vain', 'held', 'to recovery: median', 'p90', 'max', 'after its end: median', 'max'],
      ...Object.entries(result.recoveries).map(([kind, { held, toHealthy, afterwards }]) => [
        kind,
        String(result.faults[kind] ?? 0),
        String(result.inVain[kind] ?? ''),
        seconds(held.median),
        seconds(toHealthy.median),
        seconds(toHealthy.p90),
        seconds(toHealthy.max),
        seconds(afterwards.median),
        seconds(afterwards.max),
      ]),
    ]),
    '',
    `Faults               ${total} in ${seconds(result.brokenMs)}, all quiet after ${seconds(result.durationMs)}`,
    `Database             ${result.database}`,
    `Received             ${result.messagesReceived} messages, ${result.messagesPerSecond} per second over the whole run`,
    `Rows                 ${counts.join(', ')}`,
    `Compared             ${comparedTrades.rows} trades and aggTrades match the exchange; ${comparedTrades.deniedIds} ids abandoned that REST denied`,
    `bookTicker           ${quotes.outages} known outages, ${ledger.windows} windows in the ledger, ${quotes.doubled} quotes stored twice`,
    `Gaps of ids          ${ledger.filled} filled, ${ledger.unrecoverable} unrecoverable`,
    `Gap to filled        ${line(result.gapToFilled)}`,
    `Consumer to rows     ${line(result.consumerStartToRows)} from its start`,
    `Kafka                ${kafka.messages} messages, duplicates: ${kafka.repeatedTrades} trades and aggTrades, ${kafka.repeatedQuotes} quotes, ${kafka.repeatedBooks} diffs and snapshots; out of order: ${kafka.outOfOrder}`,
    `Brokers              ${result.brokers}`,
    `Acknowledged         ${silence(acknowledgements.longest)}; during faults of ingestion: ${silence(acknowledgements.longestWhileStruck)}`,
    `Receipt stamps       ${stamps.rows} trades, ${stamps.wrong} wrong; ${stamps.wrongClocks} clock faults, ${stamps.inLedger} of them in the ledger`,
    ...(result.archive === null ? [] : [`Archive              ${archived(result.archive)}`]),
    ...(result.books === null ? [] : bookLines(result.books, result.lostQuotesFound)),
    `Memory slope         ${Object.entries(memorySlopes)
      .map(([name, { resident, heap }]) => `${name} ${slope(resident)} resident, ${slope(heap)} heap`)
      .join('; ')}`,
    `Peak memory          ${perPart(result.peakMemoryBytes, (bytes) => `${Math.round(bytes / 2 ** 20)} MiB`)}`,
    `Restarts             ${perPart(result.restarts, String)}`,
    '',
    ...(result.ok
      ? [`Verdict: everything holds. Seed ${result.seed}.`]
      : [
          ...result.violations.map((sentence) => `VIOLATION: ${sentence}`),
          `Verdict: ${result.violations.length} violations. The same faults again: ${result.command}`,
        ]),
  ].join('\n')
}

function archived({ rows, segments, readers, skipped }: ArchiveCheck): string {
  const tables = Object.entries(rows).flatMap(([table, count]) => (count === 0 ? [] : [`${count} ${table}`]))
  const how = skipped === null ? `equal to the tables by ${readers.join(', ')}` : `NOT COMPARED: ${skipped}`
  return `${tables.join(', ')} in ${segments} segments, ${how}`
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`
}

function line({ n, median, p90, max }: Figures): string {
  return n === 0
    ? 'not measured'
    : `n ${n}, median ${seconds(median)}, p90 ${seconds(p90)}, max ${seconds(max)}`
}

function silence(longest: SilenceFigures | null): string {
  if (longest === null) return 'no silence of a second'
  const { ms, from, during } = longest
  return `longest silence ${seconds(ms)} at ${from.slice(11, 19)} (${during.length === 0 ? 'no fault' : during.join(', ')})`
}

function slope(measured: Slope | null): string {
  if (measured === null) return 'not measured'
  const { mebibytesPerMinute, overMs } = measured
  return `${mebibytesPerMinute.toFixed(2)} MiB per minute over ${(overMs / 60_000).toFixed(1)} min`
}

function perPart(values: Readonly<Record<string, number>>, show: (value: number) => string): string {
  return Object.entries(values)
    .map(([part, value]) => `${part} ${show(value)}`)
    .join(', ')
}

/** Aligns the first column left, the others right. */
function table(rows: readonly string[][]): string[] {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => (row[column] ?? '').length)),
  )
  return rows.map((row) =>
    row
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join('  '),
  )
}
