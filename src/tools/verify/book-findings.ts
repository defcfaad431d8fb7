import { isoOfUs } from '../../foundation/market/time-unit.ts'
import type { BookCheckCounts, BookFinding, Top } from '../../foundation/order-book/book-check.ts'
import type { BookDiff } from '../../foundation/order-book/book-rows.ts'
import { counted, plural } from '../../foundation/telemetry/plural.ts'
import { atId, finding, type Remark, trimmed, unchecked } from './findings.ts'
import type { BookReport, Example } from './report-types.ts'

/** Changes and their times in which the top of a book was wrong. */
interface WrongTops {
  readonly fromId: number
  readonly fromUs: number
  readonly first: string
  toId: number
  toUs: number
  /** Each time the top or the quote changed, and they still differed. */
  count: number
}

/** Several levels of one snapshot are one case. */
interface WrongLevels {
  readonly kind: 'level' | 'keyframe'
  readonly lastUpdateId: number
  readonly first: string
  count: number
}

/** The cases of one kind: their number, and the first of them. */
class Cases {
  count = 0
  readonly examples: Example[] = []
  readonly #limit: number

  constructor(limit: number) {
    this.#limit = limit
  }

  add(example: () => Example): void {
    this.count++
    if (this.examples.length < this.#limit) this.examples.push(example())
  }
}

/**
 * Collects what the check of one book finds, in memory that does not grow with the number of cases. A
 * wrong book differs from every quote: such a window is one case.
 */
export class BookFindings {
  readonly #cases: Readonly<Record<'top' | 'level' | 'keyframe' | 'crossed' | 'falling time', Cases>>
  #tops: WrongTops | null = null
  #wrongTops = 0
  #levels: WrongLevels | null = null
  #wrongLevels = 0

  constructor(limit: number) {
    const cases = () => new Cases(limit)
    this.#cases = {
      top: cases(),
      level: cases(),
      keyframe: cases(),
      crossed: cases(),
      'falling time': cases(),
    }
  }

  /** @param isTopWrong whether the top was wrong when it was last compared */
  add(found: readonly BookFinding[], diff: BookDiff, isTopWrong: boolean): void {
    for (const one of found) this.#add(one)
    if (this.#tops === null) return
    if (!isTopWrong) this.#endTops()
    else {
      this.#tops.toId = diff.lastUpdateId
      this.#tops.toUs = diff.eventTimeUs
    }
  }

  /** No more changes follow. */
  end(): void {
    this.#endTops()
    this.#endLevels()
  }

  #add(one: BookFinding): void {
    switch (one.kind) {
      case 'top':
        this.#wrongTops++
        this.#tops ??= {
          ...{ fromId: one.updateId, fromUs: one.eventTimeUs, toId: one.updateId, toUs: one.eventTimeUs },
          first: `book ${topText(one.book)}, quote ${one.quote.updateId} ${topText(one.quote)}`,
          count: 0,
        }
        this.#tops.count++
        return
      case 'level':
      case 'keyframe':
        if (this.#levels?.lastUpdateId !== one.lastUpdateId || this.#levels.kind !== one.kind) {
          this.#endLevels()
          const what = one.kind === 'level' ? 'snapshot' : 'keyframe'
          const first = `${one.side} ${one.price}: book ${one.rebuilt}, ${what} ${one.anchored}`
          this.#levels = { kind: one.kind, lastUpdateId: one.lastUpdateId, first, count: 0 }
        }
        this.#levels.count++
        return
      case 'crossed':
        this.#cases.crossed.add(() => atId(one.updateId, `at ${isoOfUs(one.eventTimeUs)}`))
        return
      case 'falling time':
        this.#cases['falling time'].add(() =>
          atId(one.updateId, `${isoOfUs(one.eventTimeUs)}, after ${isoOfUs(one.beforeUs)}`),
        )
    }
  }

  #endTops(): void {
    const tops = this.#tops
    this.#tops = null
    if (tops === null) return
    this.#cases.top.add(() => ({
      from: tops.fromId,
      to: tops.toId,
      detail: `${isoOfUs(tops.fromUs)} to ${isoOfUs(tops.toUs)}, ${plural(tops.count, 'wrong top')}, the first: ${tops.first}`,
    }))
  }

  #endLevels(): void {
    const levels = this.#levels
    this.#levels = null
    if (levels === null) return
    const { kind, lastUpdateId, first, count } = levels
    if (kind === 'level') this.#wrongLevels += count
    this.#cases[kind].add(() => atId(lastUpdateId, `${plural(count, 'level')}, the first: ${first}`))
  }

  remarks(of: Pick<BookReport, 'symbol' | 'epoch'>, { quotes, detectableQuotes }: BookCheckCounts): Remark[] {
    const share = quotes === 0 ? '0' : ((100 * detectableQuotes) / quotes).toFixed(1)
    const about = { check: 'order book', ...of, eventType: 'depth' } as const
    const { top, level, keyframe, crossed, 'falling time': falling } = this.#cases
    const remarks = [
      finding({
        ...{ ...about, kind: 'top', severity: 'failure', count: top.count, examples: top.examples },
        summary: `${counted(top.count, 'window')} in which the top of the book differs from the last quote, ${plural(this.#wrongTops, 'time')} in all: a change is altered, or a quote is missing or altered; only ${share} % of missing quotes show`,
      }),
      finding({
        ...{ ...about, kind: 'snapshot', severity: 'failure', count: level.count, examples: level.examples },
        summary: `${counted(level.count, 'snapshot')} unlike the book rebuilt from the one before, in ${plural(this.#wrongLevels, 'level')}: a change between them is altered`,
      }),
      finding({
        ...{ ...about, kind: 'keyframe', severity: 'failure' },
        ...{ count: keyframe.count, examples: keyframe.examples },
        summary: `${counted(keyframe.count, 'keyframe')} unlike the rebuilt book`,
      }),
      finding({
        ...{ ...about, kind: 'crossed', severity: 'failure' },
        ...{ count: crossed.count, examples: crossed.examples },
        summary: `${counted(crossed.count, 'time')} the best bid was at or above the best ask`,
      }),
      finding({
        ...{ ...about, kind: 'backwards', severity: 'notice' },
        ...{ count: falling.count, examples: falling.examples },
        summary: `${counted(falling.count, 'change')} with an event time before that of the change before`,
      }),
    ]
    return remarks.filter(({ count }) => count !== 0)
  }
}

function topText({ bidPrice, bidQuantity, askPrice, askQuantity }: Top): string {
  const [bid, ask] = [
    [bidPrice, bidQuantity],
    [askPrice, askQuantity],
  ].map((level) => level.map(trimmed).join(' × '))
  return `${bid} / ${ask}`
}

/** Says what of a book could not be checked. */
export function uncheckedOf(symbol: string, counts: BookCheckCounts): Remark[] {
  const { unknownTops, unusableAnchors, unknownKeyframes, quotes, detectableQuotes } = counts
  const all: ReadonlyArray<readonly [count: number, what: string]> = [
    [
      unknownTops,
      'changes of the order book whose top is not known: before a snapshot, after missing ids, or outside the horizon',
    ],
    [unusableAnchors, 'snapshots of the order book that no change continues'],
    [unknownKeyframes, 'keyframes at whose id the order book is not known'],
    [
      quotes - detectableQuotes,
      'quotes whose absence no order book shows: not the last before the end of a change, or equal to the one before',
    ],
  ]
  return all.flatMap(([count, what]) => (count === 0 ? [] : [unchecked(what, { symbol, count })]))
}
