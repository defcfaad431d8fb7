import type { BookCheck } from './books.ts'
import type { Figures } from './figures.ts'
import type { RecordedBooks } from './recorded-books.ts'

/** Renders the part of a report about order books. */
export function bookLines({ depth, tables, archive }: RecordedBooks, lostQuotesFound: number): string[] {
  const { diffs, holes, lostIds, dropped, snapshots } = depth
  const reasons = Object.entries(snapshots).map(([reason, count]) => `${count} ${reason}`)
  return [
    `Order books          ${checked(tables)}`,
    ...(archive === null ? [] : [`  from the archive   ${checked(archive)}`]),
    `  diffs              ${diffs}; ${holes} holes of ${lostIds} ids in the ledger; of ${dropped.diffs} dropped diffs ${dropped.inLedger} are in the ledger, ${dropped.stored} came over another connection`,
    `  known again        ${waited(tables.waits)}`,
    `  snapshots          ${reasons.length === 0 ? 'reasons not checked' : reasons.join(', ')}`,
    `  quotes             ${lostQuotesFound} times verify found that the exchange had dropped some`,
    ...tables.horizons.slices.map(
      ({ fromMs, books, levels, basisPoints, oldestMs }) =>
        `  horizon ${minutes(fromMs).padStart(11)}  levels per side: lowest ${levels.lowest}, median ${levels.median}; basis points: ${basisPoints.lowest}, ${basisPoints.median}; oldest snapshot ${minutes(oldestMs)}; ${books} books`,
    ),
  ]
}

function checked({ instants, books, levels, wrongLevels, refused, horizons }: BookCheck): string {
  const without = Object.entries(refused).map(([reason, count]) => `${count} ${reason}`)
  const { deepShare } = horizons
  return (
    `${books} of ${instants} instants, ${levels} levels, ${wrongLevels} wrong; ` +
    `100 levels per side in ${percent(deepShare)} of the books, at ${percent((deepShare * books) / instants)} of the instants` +
    (without.length === 0 ? '' : `; no book: ${without.join(', ')}`)
  )
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`
}

function waited({ n, median, max }: Figures): string {
  if (n === 0) return 'no instant was in a hole'
  return `${(median / 1000).toFixed(1)} s after a hole, at most ${(max / 1000).toFixed(1)} s, in ${n} holes`
}

function minutes(ms: number): string {
  const seconds = Math.round(ms / 1000)
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`
}
