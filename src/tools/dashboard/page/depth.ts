import uPlot from 'uplot'
import { resolved, shownValue, widthOfValues } from './charts.ts'
import { durationText, priceText, timeText } from './format.ts'
import type { BookSideView, BookView } from './snapshot.ts'

const EVERY_MS = 2000
/** Where no book is recorded, it may be later. */
const UNRECORDED_EVERY_MS = 15_000
/** A side that reaches farther than the other by more than this is cut. */
const REACH_FACTOR = 3

const FAILED: BookView = { kind: 'refused', text: 'The dashboard cannot read the book at the moment.' }

/** The depth chart of the chosen symbol. It is hidden if no order books are recorded. */
export class Depth {
  readonly #figure = element('book')
  readonly #place = element('depth')
  #symbol = ''
  #view: BookView = { kind: 'none' }
  #range: [number, number] = [0, 1]
  #plot: uPlot | null = null
  #timer = 0

  constructor() {
    new ResizeObserver(() => this.#draw()).observe(this.#place)
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#redraw())
  }

  /** Shows the book of this symbol from now on. */
  choose(symbol: string): void {
    if (symbol === this.#symbol) return
    this.#symbol = symbol
    this.#show({ kind: 'none' })
    clearTimeout(this.#timer)
    void this.#follow(symbol)
  }

  /** Reads the book again and again, until another symbol is chosen. */
  async #follow(symbol: string): Promise<void> {
    const view = document.hidden ? null : await fetchBook(symbol)
    if (symbol !== this.#symbol) return
    if (view !== null) this.#show(view)
    const everyMs = this.#view.kind === 'none' && view !== null ? UNRECORDED_EVERY_MS : EVERY_MS
    this.#timer = window.setTimeout(() => void this.#follow(symbol), everyMs)
  }

  #show(view: BookView): void {
    this.#view = view
    this.#figure.hidden = view.kind === 'none'
    this.#figure.toggleAttribute('data-refused', view.kind === 'refused')
    this.#place.hidden = view.kind !== 'book'
    element('book-title').textContent = `${this.#symbol}: order book, sums of quantities from the best price`
    element('book-facts').textContent = factsOf(view)
    this.#draw()
  }

  #draw(): void {
    if (this.#plot === null || this.#view.kind !== 'book') {
      this.#redraw()
      return
    }
    const { data, range } = drawn(this.#view.bids, this.#view.asks)
    this.#range = range
    this.#plot.setData(data)
    if (this.#plot.width !== this.#place.clientWidth) this.#plot.setSize(this.#size())
  }

  /** Leaves room for the line of the legend. */
  #size(): { width: number; height: number } {
    return { width: this.#place.clientWidth, height: this.#place.clientHeight - 26 }
  }

  #redraw(): void {
    this.#plot?.destroy()
    this.#plot = null
    if (this.#view.kind !== 'book' || this.#place.clientWidth === 0) return
    const { data, range } = drawn(this.#view.bids, this.#view.asks)
    this.#range = range
    const style = getComputedStyle(this.#place)
    const colour = (name: string) => resolved(style.getPropertyValue(name), this.#place)
    const axis = {
      stroke: colour('--soft'),
      grid: { stroke: colour('--line'), width: 1 },
      ticks: { show: false },
    }
    const line = (label: string, name: string, align: -1 | 1): uPlot.Series => ({
      label,
      stroke: colour(name),
      fill: colour(name).replace('rgb(', 'rgba(').replace(')', ', 0.15)'),
      width: 1.5,
      value: (_plot, value) => shownValue(value),
      points: { show: false },
      ...pathsOf(align),
    })
    const options: uPlot.Options = {
      ...this.#size(),
      scales: {
        x: { time: false, range: () => this.#range },
        y: { range: (_plot, _min, max) => [0, max * 1.05] },
      },
      cursor: { y: false, points: { size: 5 } },
      axes: [
        { ...axis, values: (_plot, prices) => prices.map(shownValue), size: 28, space: 90 },
        { ...axis, size: widthOfValues },
      ],
      series: [
        { label: 'price', value: (_plot, price) => shownValue(price) },
        line('bids', '--bid', -1),
        line('asks', '--ask', 1),
      ],
      hooks: { draw: [(plot) => markHorizons(plot, this.#view, colour('--warn'))] },
    }
    this.#plot = new uPlot(options, data, this.#place)
  }
}

/** A step at each level: before it for bids, after it for asks. */
function pathsOf(align: -1 | 1): Pick<uPlot.Series, 'paths'> {
  const paths = uPlot.paths.stepped?.({ align })
  return paths === undefined ? {} : { paths }
}

/** Prices in rising order with the sums of both sides, and the prices to show. */
function drawn(
  bids: BookSideView,
  asks: BookSideView,
): { data: [number[], ...Array<Array<number | null>>]; range: [number, number] } {
  const below = bids.levels.toReversed()
  const data: [number[], ...Array<Array<number | null>>] = [
    [...below, ...asks.levels].map(([price]) => price),
    [...below.map(([, sum]) => sum), ...asks.levels.map(() => null)],
    [...below.map(() => null), ...asks.levels.map(([, sum]) => sum)],
  ]
  const bid = bids.levels[0]?.[0]
  const ask = asks.levels[0]?.[0]
  const middle = ((bid ?? ask ?? 0) + (ask ?? bid ?? 0)) / 2
  const reachOf = ({ levels }: BookSideView) => Math.abs((levels.at(-1)?.[0] ?? middle) - middle)
  // An empty part of the chart would say that a cut side has no more levels.
  const ends = [bids, asks].filter(({ isCut }) => isCut).map(reachOf)
  const reaches = [bids, asks].map(reachOf).filter((reach) => reach > 0)
  const most = Math.min(Math.max(0, ...reaches), REACH_FACTOR * Math.min(...reaches))
  const reach = Math.min(most, ...ends) || middle / 1000
  return { data, range: [middle - reach, middle + reach] }
}

/** Marks where the book stops being exact, if the chart reaches so far. */
function markHorizons(plot: uPlot, view: BookView, colour: string): void {
  const { ctx, bbox } = plot
  for (const { horizon } of view.kind === 'book' ? [view.bids, view.asks] : []) {
    if (horizon === null) continue
    const x = plot.valToPos(Number(horizon.price), 'x', true)
    if (x < bbox.left || x > bbox.left + bbox.width) continue
    ctx.save()
    ctx.strokeStyle = colour
    ctx.lineWidth = 2
    ctx.setLineDash([6, 4])
    ctx.beginPath()
    ctx.moveTo(x, bbox.top)
    ctx.lineTo(x, bbox.top + bbox.height)
    ctx.stroke()
    ctx.restore()
  }
}

function factsOf(view: BookView): string {
  if (view.kind === 'none') return ''
  if (view.kind === 'refused') return `Not known at the moment. ${view.text}`
  const { atMs, updateId, isCrossed, anchorUpdateId, ageMs, bids, asks } = view
  const wrong = isCrossed
    ? 'Wrong: the best bid is at or above the best ask, so a recorded change or the snapshot is wrong (see tapeline verify). '
    : ''
  return (
    `${wrong}Update id ${updateId} at ${timeText(atMs)} UTC, from the snapshot ${anchorUpdateId}, ` +
    `${durationText(ageMs)} old. Bids are ${reachText(bids, 'down')}, asks ${reachText(asks, 'up')}.`
  )
}

function reachText({ horizon }: BookSideView, direction: string): string {
  if (horizon === null) return 'complete'
  const distance = horizon.basisPoints === null ? '' : ` (${horizon.basisPoints} basis points)`
  return `exact ${direction} to ${priceText(horizon.price)}${distance}`
}

async function fetchBook(symbol: string): Promise<BookView> {
  const response = await fetch(`/book?symbol=${encodeURIComponent(symbol)}`).catch(() => null)
  return response?.ok === true ? response.json() : FAILED
}

function element(id: string): HTMLElement {
  const found = document.getElementById(id)
  if (found === null) throw new Error(`The page has no ${id}`)
  return found
}
