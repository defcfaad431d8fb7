import { countIds } from '../market/id-ranges.ts'
import type { Audit, SequenceAudit } from './verify.ts'

/** Ranges shown of a sequence; the JSON has all. */
const SHOWN = 5

/** An audit as a person reads it. */
export function renderAudit(audit: Audit): string {
  const rows = audit.sequences.map((sequence) => [
    sequence.symbol,
    sequence.eventType + (sequence.epoch === 0 ? '' : ` (epoch ${sequence.epoch})`),
    String(sequence.rows),
    `${sequence.firstId}..${sequence.lastId}`,
    String(sequence.explained),
    String(countIds(sequence.unexplained)),
    String(sequence.doubled.length),
  ])
  const quotes = audit.bookTickers.map(({ symbol, rows, repeats }) => [
    symbol,
    'bookTicker',
    String(rows),
    '',
    '',
    '',
    String(repeats),
  ])
  const header = ['symbol', 'type', 'rows', 'ids', 'explained', 'missing', 'doubled']
  return [
    ...table([header, ...rows, ...quotes]),
    '',
    ...audit.sequences.flatMap(findings),
    ...audit.bookTickers.flatMap(({ symbol, repeats }) =>
      repeats === 0 ? [] : [`${symbol} bookTicker: ${repeats} doubled`],
    ),
    `Not checked: ${audit.notChecked.join('; ')}.`,
    verdict(audit),
  ].join('\n')
}

function verdict({ clean, sequences, bookTickers }: Audit): string {
  if (!clean) return 'Verdict: NOT CLEAN.'
  if (sequences.length === 0 && bookTickers.length === 0)
    return 'Verdict: nothing is stored, so nothing was audited.'
  return 'Verdict: nothing missing that is not explained, nothing doubled.'
}

function findings({ symbol, eventType, unexplained, saidFilled, doubled }: SequenceAudit): string[] {
  const more = (count: number) => (count > SHOWN ? ` and ${count - SHOWN} more` : '')
  const lines: string[] = []
  if (unexplained.length > 0) {
    const ranges = unexplained
      .slice(0, SHOWN)
      .map(({ from, to }) => (from === to ? `${from}` : `${from}..${to}`))
    const filled =
      saidFilled.length === 0 ? '' : `, of which the ledger says that ${countIds(saidFilled)} are filled`
    lines.push(`${symbol} ${eventType}: missing ${ranges.join(', ')}${more(unexplained.length)}${filled}`)
  }
  if (doubled.length > 0) {
    lines.push(`${symbol} ${eventType}: doubled ${doubled.slice(0, SHOWN).join(', ')}${more(doubled.length)}`)
  }
  return lines
}

/** Columns padded to their widest cell; the first two to the left, figures to the right. */
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
