/** How far a book was exact, on its narrower side. */
export interface Width {
  readonly timeMs: number
  /** Age of its snapshot. */
  readonly ageMs: number
  /** Levels inside the horizon. */
  readonly levels: number
  /** Distance of the horizon from the middle price; Infinity: complete. */
  readonly basisPoints: number
}

interface Slice {
  /** Since the first book. */
  readonly fromMs: number
  readonly books: number
  readonly levels: { readonly lowest: number; readonly median: number }
  readonly basisPoints: { readonly lowest: number; readonly median: number }
  readonly oldestMs: number
}

export interface HorizonFigures {
  /** Share of the books with at least 100 levels on both sides inside their horizons. */
  readonly deepShare: number
  /** Equal parts of the time. */
  readonly slices: readonly Slice[]
}

const DEEP = 100
const SLICES = 5

/** Summarises the horizons of books over time. */
export function horizonFigures(widths: readonly Width[]): HorizonFigures {
  const times = widths.map(({ timeMs }) => timeMs)
  const firstMs = times.reduce((one, other) => Math.min(one, other), Number.POSITIVE_INFINITY)
  const lastMs = times.reduce((one, other) => Math.max(one, other), firstMs)
  const sliceMs = (lastMs - firstMs + 1) / SLICES
  const slices = Array.from({ length: SLICES }, (_, index): Slice => {
    const own = widths.filter(({ timeMs }) => Math.floor((timeMs - firstMs) / sliceMs) === index)
    return {
      fromMs: Math.round(index * sliceMs),
      books: own.length,
      levels: lowestAndMedian(own.map(({ levels }) => levels)),
      basisPoints: lowestAndMedian(own.map(({ basisPoints }) => basisPoints)),
      oldestMs: own.reduce((oldest, { ageMs }) => Math.max(oldest, ageMs), 0),
    }
  })
  const deep = widths.filter(({ levels }) => levels >= DEEP).length
  return {
    deepShare: widths.length === 0 ? 0 : deep / widths.length,
    slices: widths.length === 0 ? [] : slices,
  }
}

function lowestAndMedian(values: readonly number[]) {
  const sorted = [...values].sort((a, b) => a - b)
  return { lowest: sorted[0] ?? 0, median: sorted[Math.floor(sorted.length / 2)] ?? 0 }
}
