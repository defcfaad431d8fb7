import uPlot from 'uplot'
import { NONE, timeText } from './format.ts'
import type { Moment, SeriesPoint } from './snapshot.ts'

/** A line: its name in the legend, and the CSS custom property of its colour. */
interface Line {
  readonly label: string
  readonly colour: string
  readonly dash?: boolean
}

type Values = Array<number | null>
type Point = readonly [atMs: number, ...values: Values]

const POINTS_KEPT = 900

/** A line is interrupted where values are missing for longer than this. */
const HOLE_MS = 10_000

/** A time chart that fits its container and follows the colours of the page. */
class Chart {
  readonly #place: HTMLElement
  readonly #lines: readonly Line[]
  #data: [number[], ...Values[]]
  #plot: uPlot | null = null

  constructor(id: string, lines: readonly Line[]) {
    const place = document.getElementById(id)
    if (place === null) throw new Error(`No place for the chart ${id}`)
    this.#place = place
    this.#lines = lines
    this.#data = [[], ...lines.map((): Values => [])]
    new ResizeObserver(() => this.#fit()).observe(place)
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#draw())
  }

  replace(points: readonly Point[]): void {
    this.#data = [[], ...this.#lines.map((): Values => [])]
    for (const point of points) this.#push(point)
    this.#show()
  }

  /** Adds a point. Replaces the last point if it has the same time. */
  add(point: Point): void {
    this.#push(point)
    this.#show()
  }

  #push([atMs, ...values]: Point): void {
    const [times, ...lines] = this.#data
    const at = atMs / 1000
    const last = times.at(-1)
    if (last !== undefined && at < last) return
    if (last === at) for (const line of lines) line.pop()
    else {
      if (last !== undefined && at - last > HOLE_MS / 1000) {
        times.push(last + 1)
        for (const line of lines) line.push(null)
      }
      times.push(at)
    }
    lines.forEach((line, i) => {
      line.push(values[i] ?? null)
    })
    while (times.length > POINTS_KEPT) for (const one of this.#data) one.shift()
  }

  #show(): void {
    if (this.#plot === null) this.#draw()
    else this.#plot.setData(this.#data)
    const newest = this.#data[0].length - 1
    // The legend shows the newest values while the cursor is not on the chart.
    if (newest >= 0 && (this.#plot?.cursor.left ?? -1) < 0) this.#plot?.setLegend({ idx: newest })
  }

  #fit(): void {
    if (this.#plot === null) this.#draw()
    else this.#plot.setSize(this.#size())
  }

  /** Leaves room for the line of the legend. */
  #size(): { width: number; height: number } {
    return { width: this.#place.clientWidth, height: this.#place.clientHeight - 26 }
  }

  #draw(): void {
    this.#plot?.destroy()
    if (this.#place.clientWidth === 0 || this.#data[0].length === 0) return
    const style = getComputedStyle(this.#place)
    const colour = (name: string) => resolved(style.getPropertyValue(name), this.#place)
    const axis = {
      stroke: colour('--soft'),
      grid: { stroke: colour('--line'), width: 1 },
      ticks: { show: false },
    }
    this.#plot = new uPlot(
      {
        ...this.#size(),
        tzDate: (at) => uPlot.tzDate(new Date(at * 1000), 'UTC'),
        cursor: { y: false, points: { size: 5 } },
        axes: [
          { ...axis, values: timesOf, size: 28, space: 90 },
          { ...axis, size: widthOfValues },
        ],
        series: [
          { label: 'UTC', value: (_plot, at) => (Number.isFinite(at) ? timeText(at * 1000) : NONE) },
          ...this.#lines.map(({ label, colour: name, dash }) => ({
            label,
            stroke: colour(name),
            width: 1.5,
            value: (_plot: uPlot, value: number | null) => shownValue(value),
            gaps: longGaps,
            points: { show: false },
            ...(dash === true ? { dash: [4, 3] } : {}),
          })),
        ],
      },
      this.#data,
      this.#place,
    )
  }
}

/** Bridges short gaps: a second without a trade is not a gap. */
const longGaps: uPlot.Series.GapsRefiner = (plot, _series, _from, _to, gaps) =>
  gaps.filter(
    ([from, to]) => (plot.posToVal(to, 'x', true) - plot.posToVal(from, 'x', true)) * 1000 > HOLE_MS,
  )

function timesOf(_plot: uPlot, times: readonly number[]): string[] {
  return times.map((at) => timeText(at * 1000))
}

/** Rounded, since the table has the exact price. Undefined for a point that no longer exists. */
export function shownValue(value: number | null | undefined): string {
  if (value === null || value === undefined) return NONE
  return value.toLocaleString('en-US', { maximumSignificantDigits: Math.abs(value) >= 1000 ? 8 : 4 })
}

/** Makes the axis wide enough for the longest value. */
export function widthOfValues(_plot: uPlot, values: readonly string[] | null): number {
  return 16 + 8 * Math.max(3, ...(values ?? []).map((value) => value.length))
}

/** Resolves a colour as the page shows it, since a canvas does not support `light-dark()`. */
export function resolved(value: string, place: HTMLElement): string {
  const probe = document.createElement('span')
  probe.style.color = value
  place.append(probe)
  const { color } = getComputedStyle(probe)
  probe.remove()
  return color
}

const PERCENTILES: readonly Line[] = [
  { label: 'p50', colour: '--brand' },
  { label: 'p99', colour: '--warn' },
]

export class Charts {
  readonly #price = new Chart('price', [
    { label: 'price', colour: '--text' },
    { label: 'bid', colour: '--bid', dash: true },
    { label: 'ask', colour: '--ask', dash: true },
  ])
  readonly #rates = new Chart('rates', [
    { label: 'messages', colour: '--soft' },
    { label: 'rows', colour: '--brand' },
  ])
  readonly #ofMoments: ReadonlyArray<readonly [Chart, (one: Moment) => Point]> = [
    [this.#rates, (one) => [one.atMs, one.messagesPerSecond, one.rowsPerSecond]],
    [new Chart('receipt', PERCENTILES), (one) => [one.atMs, one.receiptP50, one.receiptP99]],
    [new Chart('row', PERCENTILES), (one) => [one.atMs, one.rowP50, one.rowP99]],
    [new Chart('lag', [{ label: 'lag', colour: '--brand' }]), (one) => [one.atMs, one.lag]],
  ]

  past(moments: readonly Moment[]): void {
    for (const [chart, pointOf] of this.#ofMoments) chart.replace(moments.map(pointOf))
  }

  moment(one: Moment): void {
    for (const [chart, pointOf] of this.#ofMoments) chart.add(pointOf(one))
  }

  series(points: readonly SeriesPoint[]): void {
    this.#price.replace(points.map(({ atMs, price, bid, ask }) => [atMs, price, bid, ask]))
  }

  point({ atMs, price, bid, ask }: SeriesPoint): void {
    this.#price.add([Math.floor(atMs / 1000) * 1000, price, bid, ask])
  }
}
