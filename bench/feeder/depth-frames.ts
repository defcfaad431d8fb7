import { MICROSECONDS_IN, type TimeUnit } from '../../src/foundation/market/time-unit.ts'
import type { Clock } from '../../src/foundation/runtime/clock.ts'
import type {
  BookHistory,
  BookMoment,
  BookSnapshot,
} from '../../src/sandbox/simulator/market/book-history.ts'
import type { StreamConnection } from '../../src/sandbox/simulator/server/stream-connection.ts'
import { TextFrameEncoder } from '../../src/sandbox/simulator/server/text-frame.ts'
import { recordedDepthValues } from '../../test/support/recorded-depth.ts'
import type { Frames } from './feed.ts'

/** Each symbol begins so many diffs after the one before, so that no two send the same at once. */
const APART = 97

/** The most levels per side that REST returns. */
const SNAPSHOT_LEVELS = 5000

type Level = readonly [price: string, quantity: string]

interface RecordedDiff {
  readonly U: number
  readonly u: number
  readonly b: readonly Level[]
  readonly a: readonly Level[]
}

/** The recorded diffs, ready to be put after an id, and the recorded snapshot. */
interface Recording {
  readonly diffs: ReadonlyArray<{ readonly ids: number; readonly levels: number; readonly tail: string }>
  readonly snapshot: Omit<BookSnapshot, 'lastUpdateId'>
}

interface Book {
  readonly head: string
  readonly middle: string
  /** Index of the next recorded diff. */
  next: number
  lastId: number
}

/**
 * The recorded levels of one symbol as the diffs of many, in turn, again and again. The ids of each symbol have
 * no hole. Snapshots have the latest id and the recorded levels; books built from them are not the recorded ones.
 */
export class DepthFrames implements Frames, BookHistory {
  readonly timeUnit: TimeUnit
  readonly #clock: Clock
  readonly #recording = recording()
  readonly #symbols: readonly string[]
  readonly #books: readonly Book[]
  readonly #encoder = new TextFrameEncoder()

  constructor(symbols: readonly string[], timeUnit: TimeUnit, clock: Clock) {
    this.timeUnit = timeUnit
    this.#clock = clock
    this.#symbols = symbols
    this.#books = symbols.map((symbol, index) => ({
      head: `{"stream":"${symbol.toLowerCase()}@depth@100ms","data":{"e":"depthUpdate","E":`,
      middle: `,"s":"${symbol}","U":`,
      next: (index * APART) % this.#recording.diffs.length,
      lastId: 1_000_000_000,
    }))
  }

  prepare(): void {}

  enqueue(
    connection: Pick<StreamConnection, 'enqueue'>,
    from: number,
    to: number,
    eventAt: ((index: number) => number) | null,
  ): void {
    const { diffs } = this.#recording
    const now = Math.floor(this.#clock.wallMicros() / MICROSECONDS_IN[this.timeUnit])
    for (let index = from; index < to; index++) {
      const book = this.#books[index % this.#books.length]
      const diff = diffs[book?.next ?? 0]
      if (book === undefined || diff === undefined) throw new Error('No symbols')
      const first = book.lastId + 1
      book.lastId += diff.ids
      book.next = (book.next + 1) % diffs.length
      const at = eventAt?.(index) ?? now
      connection.enqueue(
        this.#encoder.encode(`${book.head}${at}${book.middle}${first},"u":${book.lastId}${diff.tail}`),
      )
    }
  }

  book(symbol: string, _: BookMoment, levels: number): BookSnapshot {
    const { bids, asks } = this.#recording.snapshot
    const lastUpdateId = this.#books[this.#symbols.indexOf(symbol)]?.lastId ?? 0
    return { lastUpdateId, bids: bids.slice(0, levels), asks: asks.slice(0, levels) }
  }
}

/** Returns the mean number of levels of a recorded diff. */
export function levelsOfDiff(): number {
  const { diffs } = recording()
  return diffs.reduce((sum, { levels }) => sum + levels, 0) / diffs.length
}

function recording(): Recording {
  const diffs: Array<Recording['diffs'][number]> = []
  let snapshot: Recording['snapshot'] | null = null
  for (const value of recordedDepthValues()) {
    const event: RecordedDiff | BookSnapshot = JSON.parse(value.toString())
    if ('lastUpdateId' in event) snapshot = { bids: deepened(event.bids, -1), asks: deepened(event.asks, 1) }
    else {
      const { U, u, b, a } = event
      const tail = `,"b":${JSON.stringify(b)},"a":${JSON.stringify(a)}}}`
      diffs.push({ ids: u - U + 1, levels: b.length + a.length, tail })
    }
  }
  if (snapshot === null) throw new Error('The recorded frames have no snapshot')
  return { diffs, snapshot }
}

/** Adds levels, a unit of price apart, after the recorded ones. */
function deepened(levels: readonly Level[], direction: 1 | -1): Level[] {
  const last = Number(levels.at(-1)?.[0])
  const more = Array.from({ length: SNAPSHOT_LEVELS - levels.length }, (_, i): Level => {
    return [(last + direction * (i + 1)).toFixed(8), '0.01000000']
  })
  return [...levels, ...more]
}
