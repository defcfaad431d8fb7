import { unlessAborted } from '../../foundation/runtime/backoff.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'
import { RepeatedProblem } from '../../foundation/telemetry/repeated-problem.ts'
import { type ForeignRows, type InstanceWatch, OvertakenError } from './instance-watch.ts'

/** Returns the checks for other instances, one at a time. A broker that hangs delays only the next one. */
export function instanceCheck(
  watch: Pick<InstanceWatch, 'check' | 'close'>,
  rows: ForeignRows,
  onOvertaken: (error: OvertakenError) => void,
  stopping: AbortSignal,
  log: Logger,
) {
  const problem = new RepeatedProblem(log, 'Reading what other instances wrote')
  let running: Promise<void> | null = null
  const check = async () => {
    try {
      await unlessAborted(watch.check(rows), stopping)
      problem.worked()
    } catch (error) {
      if (stopping.aborted) return
      if (error instanceof OvertakenError) onOvertaken(error)
      else problem.failed(error)
    }
  }
  return {
    /** Starts a check unless one is running. */
    begin(): void {
      running ??= check().finally(() => {
        running = null
      })
    },
    /** Waits for the running check. Call it after the signal has aborted. */
    async close(): Promise<void> {
      await running
      await watch.close()
    },
  }
}
