import { plural } from './plural.ts'
import type { IngestionStatus } from './status.ts'

/**
 * Open gaps whose last request failed, as one line and what a person can do. A gap that REST has answered without the
 * trades is not among them: the answer must repeat before it counts.
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
