import type { Report, Watermark } from './report-types.ts'

/**
 * Whether all failures of a report may disappear soon. That applies to ids that are missing while
 * messages wait in Kafka, and to ids that the ledger calls filled: ledger rows may overtake trades,
 * which come through another partition. Duplicates and differences are permanent.
 *
 * @param first the watermark of the first report; null for the first report
 */
export function mayStillArrive({ findings, sequences, watermark }: Report, first: Watermark | null): boolean {
  const failures = findings.filter(({ severity }) => severity === 'failure')
  const passing = failures.every(
    ({ check, kind }) =>
      (check === 'continuity' && kind === 'missing') || (check === 'ledger' && kind === 'filled'),
  )
  if (failures.length === 0 || !passing) return false
  if (watermark.pending === null) {
    return sequences.every(({ unexplained, saidFilled }) => unexplained === saidFilled)
  }
  // Check once more, for messages that were on their way to Kafka, such as the ledger row of a new
  // gap. Then wait until everything that Kafka had at the first report is stored. Newer messages
  // are always pending while the services run.
  return first === null || !hasReached(watermark, first)
}

/** Whether the later watermark has everything that Kafka had at the first one. */
export function hasReached(later: Watermark, first: Watermark): boolean {
  return first.partitions.every(({ topic, partition, end, pending }) => {
    if (end === null || pending === 0) return true
    const stored = later.partitions.find((one) => one.topic === topic && one.partition === partition)?.stored
    return stored !== undefined && stored !== null && stored >= end
  })
}
