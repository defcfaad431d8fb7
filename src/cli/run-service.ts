import { setFlagsFromString } from 'node:v8'
import { sleep } from '../foundation/runtime/backoff.ts'
import { describeError, isTapelineError } from '../foundation/runtime/errors.ts'
import { SERVICE_V8_FLAGS } from '../foundation/runtime/node-flags.ts'
import { onStopSignal } from '../foundation/runtime/signals.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { RunningService } from '../foundation/telemetry/service.ts'

/** Time limits of a stop: first to deliver held messages, then to close everything else. */
const DELIVER_MS = 7000
const CLOSE_MS = 2500

/**
 * Runs a service until SIGTERM or SIGINT, stops it within 10 s and exits: 0 when everything was
 * delivered, otherwise 1. A second signal exits at once.
 */
export async function runService(start: () => Promise<RunningService>, log: Logger): Promise<never> {
  setFlagsFromString(SERVICE_V8_FLAGS)
  const stopWanted = Promise.withResolvers<'signal'>()
  onStopSignal(() => stopWanted.resolve('signal'))
  const service = await start()
  const reason = await Promise.race([stopWanted.promise, service.ended])
  if (reason !== 'signal') reportError(reason, log)
  const stopped = await stopInTime(service, log)
  const failed = isTapelineError(reason) ? reason.exitCode : 1
  process.exit(reason === 'signal' && stopped ? 0 : failed)
}

/** Logs an error as one line. Only unexpected errors include their stack. */
function reportError(error: unknown, log: Logger): void {
  if (isTapelineError(error)) log.error({ code: error.code, fix: error.fix }, error.message)
  else log.error({ err: error }, `Stopped by a defect: ${describeError(error)}`)
}

async function stopInTime(service: RunningService, log: Logger): Promise<boolean> {
  const deliver = AbortSignal.timeout(DELIVER_MS)
  const deadline = sleep(DELIVER_MS + CLOSE_MS).then(() => 'late' as const)
  try {
    if ((await Promise.race([service.stop(deliver), deadline])) !== 'late') return true
    log.error('The stop exceeded its time limit and was aborted; the next start recovers the rest')
  } catch (error) {
    reportError(error, log)
  }
  return false
}
