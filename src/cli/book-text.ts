import { isoOfUs } from '../foundation/market/time-unit.ts'
import type { BookAt, BookRefusal, SideAt } from '../foundation/order-book/book-at.ts'
import { cumulative } from '../foundation/order-book/cumulative.ts'
import type { Level, SideName } from '../foundation/order-book/order-book.ts'
import { plural } from '../foundation/telemetry/plural.ts'
import { clockText } from '../sandbox/up/display/text-style.ts'

const BETWEEN = ' | '

const CROSSED =
  'the best bid is at or above the best ask: a recorded change or the snapshot is wrong, see `tapeline verify`'

/**
 * A book as a table: both sides beside each other, or, in a narrow terminal, the asks above the bids.
 *
 * @param limit levels per side that were requested
 * @param columns width of the terminal
 */
export function bookLines(symbol: string, book: BookAt, limit: number, columns: number): string[] {
  const bids = sideCells('bids', book.bids.levels)
  const asks = sideCells('asks', book.asks.levels)
  const bidLines = aligned(bids.map((row) => row.toReversed()))
  const askLines = aligned(asks)
  const bidWidth = bidLines[0]?.length ?? 0
  const besides = Array.from({ length: Math.max(bidLines.length, askLines.length) }, (_, i) =>
    `${(bidLines[i] ?? '').padStart(bidWidth)}${BETWEEN}${askLines[i] ?? ''}`.trimEnd(),
  )
  const [head = [], ...levels] = asks
  const isWide = bidWidth + BETWEEN.length + (askLines[0]?.length ?? 0) <= columns
  const stacked = () => [...aligned([head, ...levels.reverse()]), '', ...aligned(bids)]
  return [...factLines(symbol, book, limit), '', ...(isWide ? besides : stacked())]
}

/** What to do where there is no book, as an imperative sentence. */
export function refusalFix(refusal: BookRefusal): string {
  switch (refusal.reason) {
    case 'nothing recorded':
      return refusal.first === null
        ? 'Check the symbol, and that STREAM_TYPES has depth.'
        : 'Ask for a later instant.'
    case 'not recorded yet':
      return 'Ask again later, or for an update id that is stored.'
    case 'no anchor':
    case 'hole':
      return refusal.next === null
        ? 'Wait until ingestion has fetched the next snapshot: it does so soon after a hole.'
        : `Ask for --update-id ${refusal.next.lastUpdateId} or later, or for an instant before.`
    case 'outside the horizon':
      return 'Ask for an instant nearer to a snapshot. The book is known again when the price returns, or with the next snapshot.'
  }
}

function factLines(symbol: string, book: BookAt, limit: number): string[] {
  const { at, anchor, ageUs, isNewest } = book
  const { derivedFrom } = anchor
  const epoch = at.epoch === 0 ? '' : ` of epoch ${at.epoch}`
  const snapshot = derivedFrom ?? anchor
  return table([
    [
      symbol,
      `${isoOfUs(at.eventTimeUs)} (E)${isNewest ? ', the newest stored: later changes are not known' : ''}`,
    ],
    ['', `update ids ${at.firstUpdateId} (U) to ${at.lastUpdateId} (u)${epoch}`],
    ['anchor', `snapshot with update id ${snapshot.lastUpdateId}, ${clockText(ageUs / 1000)} old`],
    ['', `received ${isoOfUs(snapshot.receivedUs)}`],
    ...(derivedFrom === null ? [] : [['', `through the keyframe with update id ${anchor.lastUpdateId}`]]),
    ['bids', sideFact(book.bids, 'down', limit)],
    ['asks', sideFact(book.asks, 'up', limit)],
    ...(book.isCrossed ? [['WRONG', CROSSED]] : []),
  ])
}

function sideFact({ horizon, levels }: SideAt, direction: string, limit: number): string {
  const few = levels.length < limit ? `: ${plural(levels.length, 'level')}` : ''
  if (horizon === null) return `complete${few}`
  const distance =
    horizon.basisPoints === null ? '' : `, ${horizon.basisPoints.toFixed(2)} basis points from the middle`
  return `exact ${direction} to ${horizon.price}${distance}${few}`
}

/** Rows of price, quantity and cumulative quantity after a head, the best first. */
function sideCells(side: SideName, levels: readonly Level[]): string[][] {
  const prices = sameDecimals(levels.map(({ price }) => price))
  const quantities = sameDecimals(levels.map(({ quantity }) => quantity))
  const sums = sameDecimals(cumulative(levels))
  const rows = levels.map((_, i) => [prices, quantities, sums].map((column) => column[i] ?? ''))
  return [[side === 'bids' ? 'bid' : 'ask', 'quantity', 'cumulative'], ...rows]
}

/** Fills decimals with zeros, so that the points are below each other. */
function sameDecimals(texts: readonly string[]): string[] {
  const decimalsOf = (text: string) => (text.includes('.') ? text.length - text.indexOf('.') - 1 : 0)
  const most = texts.reduce((max, text) => Math.max(max, decimalsOf(text)), 0)
  return texts.map((text) => {
    const point = most > 0 && !text.includes('.') ? '.' : ''
    return `${text}${point}${'0'.repeat(most - decimalsOf(text))}`
  })
}

/** Lines of cells, aligned to the right. */
function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, i) =>
    rows.reduce((widest, row) => Math.max(widest, row[i]?.length ?? 0), 0),
  )
  return rows.map((row) => row.map((cell, i) => cell.padStart(widths[i] ?? 0)).join('  '))
}

/** Lines of a name and a text. */
function table(rows: readonly (readonly string[])[]): string[] {
  const width = rows.reduce((widest, [name = '']) => Math.max(widest, name.length), 0)
  return rows.map(([name = '', text = '']) => `${name.padEnd(width)}  ${text}`)
}
