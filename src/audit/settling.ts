import type { Audit } from './shape.ts'

/**
 * Whether all that speaks against an audit may mend itself in a moment: ids that are missing while messages wait in Kafka,
 * or of which the ledger says that they are filled, having overtaken their rows, which come through another partition.
 * What is doubled or differs stays so.
 *
 * @param looks how often it has been looked
 */
export function mayBeSettling({ findings, sequences, watermark }: Audit, looks: number): boolean {
  const failures = findings.filter(({ severity }) => severity === 'failure')
  const passing = failures.every(
    ({ check, kind }) =>
      (check === 'continuity' && kind === 'missing') || (check === 'ledger' && kind === 'filled'),
  )
  if (failures.length === 0 || !passing) return false
  if (watermark.pending === null) {
    return sequences.every(({ unexplained, saidFilled }) => unexplained === saidFilled)
  }
  // Everything that Kafka had is stored. Only what was on its way to Kafka may still explain it: look once more.
  return watermark.pending > 0 || looks < 2
}
