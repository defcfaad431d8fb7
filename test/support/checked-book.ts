import {
  BookCheck,
  type BookCheckCounts,
  type BookFinding,
  type Quote,
} from '../../src/foundation/order-book/book-check.ts'
import type { Anchor, BookDiff } from '../../src/foundation/order-book/book-rows.ts'

/** Gives everything to a {@link BookCheck} in the order of update ids. */
export function checkBook(
  diffs: readonly BookDiff[],
  quotes: readonly Quote[],
  anchors: readonly Anchor[],
): { findings: BookFinding[]; counts: BookCheckCounts } {
  const check = new BookCheck()
  const findings: BookFinding[] = []
  let quote = 0
  let anchor = 0
  for (const diff of diffs) {
    for (
      let next = quotes[quote];
      next !== undefined && next.updateId <= diff.lastUpdateId;
      next = quotes[++quote]
    )
      check.quote(next)
    for (
      let next = anchors[anchor];
      next !== undefined && next.lastUpdateId <= diff.lastUpdateId;
      next = anchors[++anchor]
    )
      check.anchor(next)
    findings.push(...check.diff(diff))
  }
  return { findings, counts: check.counts }
}
