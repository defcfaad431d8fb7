import type { BookDiff } from './book-rows.ts'
import type { BookSide } from './book-side.ts'
import type { Levels } from './level-columns.ts'
import { type OrderBook, SIDE_NAMES, type SideName } from './order-book.ts'
import { decimalText } from './scaled-units.ts'

/** A level of which two books say different things. */
export interface LevelDifference {
  readonly side: SideName
  readonly price: string
  /** Quantity 0: no level. */
  readonly rebuilt: string
  readonly anchored: string
}

export interface Comparison {
  /** Levels that both books know and at least one contains. */
  readonly compared: number
  readonly differences: readonly LevelDifference[]
}

/**
 * Compares a rebuilt book with one that began from a later anchor, both after the same diff: all levels that
 * both know. Makes their scales the same.
 *
 * @param both a diff that both have applied: its levels are equal in any case, and so are no evidence
 */
export function compareBooks(rebuilt: OrderBook, anchored: OrderBook, both: BookDiff | null): Comparison {
  rebuilt.growTo(anchored.priceScale, anchored.quantityScale)
  anchored.growTo(rebuilt.priceScale, rebuilt.quantityScale)
  const differences: LevelDifference[] = []
  let compared = 0
  for (const name of SIDE_NAMES) {
    const left = rebuilt[name]
    const right = anchored[name]
    const applied = both === null ? new Set() : pricesOf(both[name], rebuilt.priceScale)
    for (const price of joined(left, right)) {
      if (applied.has(price)) continue
      const found = left.quantityOf(price)
      const expected = right.quantityOf(price)
      if (found === null || expected === null) continue
      compared++
      if (found === expected) continue
      differences.push({
        side: name,
        price: decimalText(price, rebuilt.priceScale),
        rebuilt: decimalText(found, rebuilt.quantityScale),
        anchored: decimalText(expected, rebuilt.quantityScale),
      })
    }
  }
  return { compared, differences }
}

function pricesOf({ prices, count, priceScale }: Levels, scale: number): Set<number> {
  return new Set(prices.subarray(0, count).map((price) => price * 10 ** (scale - priceScale)))
}

/** The prices of the levels of two sides, each once, from the best. */
function* joined(one: BookSide, other: BookSide): Generator<number> {
  let i = one.count - 1
  let j = other.count - 1
  while (i >= 0 || j >= 0) {
    const left = i < 0 ? Number.NEGATIVE_INFINITY : one.keyAt(i)
    const right = j < 0 ? Number.NEGATIVE_INFINITY : other.keyAt(j)
    if (left >= right) {
      yield one.priceAt(i--)
      if (left === right) j--
    } else yield other.priceAt(j--)
  }
}
