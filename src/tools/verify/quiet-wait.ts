import type { Report, Watermark } from './report-types.ts'

/**
 * Whether all that speaks against an audit may mend itself in a moment: ids that are missing while messages wait in Kafka,
 * or of which the ledger says that they are filled, having overtaken their rows, which come through another partition.
 * What is doubled or differs stays so.
 *
 * @param first the watermark of the first look; null when this is the first
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
  // What was on its way to Kafka then, like the ledger row of a gap just found, is looked for once more; and what Kafka had
  // then is waited for. That there is always something newer pending while the services run says nothing.
  return first === null || !hasReached(watermark, first)
}

/** Whether everything that Kafka had at the first look is in the later one. */
function hasReached(later: Watermark, first: Watermark): boolean {
  return first.partitions.every(({ topic, partition, end, pending }) => {
    if (end === null || pending === 0) return true
    const stored = later.partitions.find((one) => one.topic === topic && one.partition === partition)?.stored
    return stored !== undefined && stored !== null && stored >= end
  })
}
