import { plural } from './plural.ts'
import type { IngestionStatus } from './status.ts'

/**
 * Summarises the open gaps whose last request failed in one line, with what a person can do. Leaves
 * out gaps for which REST answered without the trades: the answer must repeat before it counts.
 *
 * @returns null if there are none; `fix` is empty if waiting is enough
 */
export function unfilledGaps(
  openGaps: IngestionStatus['openGaps'],
): { readonly text: string; readonly fix: string } | null {
  const failed = openGaps.filter(({ isFailing }) => isFailing)
  const [first] = failed
  if (first === undefined) return null
  return {
    text: `${plural(failed.length, 'gap')} cannot be filled now: ${first.problem}`,
    fix: first.fix ?? '',
  }
}
