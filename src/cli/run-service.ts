import { setFlagsFromString } from 'node:v8'
import { describeError, TapelineError } from '../foundation/runtime/errors.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { RunningService } from '../foundation/telemetry/service.ts'

/** One Ctrl-C under npm comes twice, from the terminal and from npm: that is no second one. */
const ECHO_MS = 500

/** How long a stop may take to deliver what is held, and then to close the rest. */
const DELIVER_MS = 7000
const CLOSE_MS = 2500

/**
 * Messages live until they are acknowledged or stored, so V8 takes them for old objects, and would let the heap grow to
 * several times what is alive before it collects them. At 30 % a consumer that drains millions stays under 250 MiB,
 * measured by `npm test -- consumer-drain`.
 */
const HEAP_GROWTH = '--heap-growing-percent=30'

/**
 * Runs a service until SIGTERM or SIGINT, stops it within 10 s and exits: 0 when everything was delivered, 1 when
 * not. A second signal exits at once.
 */
export async function runService(start: () => Promise<RunningService>, log: Logger): Promise<never> {
  setFlagsFromString(HEAP_GROWTH)
  const stopWanted = Promise.withResolvers<'signal'>()
  let firstAtMs: number | null = null
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      const nowMs = performance.now()
      firstAtMs ??= nowMs
      if (nowMs - firstAtMs > ECHO_MS) process.exit(1)
      stopWanted.resolve('signal')
    })
  }
  const service = await start()
  const reason = await Promise.race([stopWanted.promise, service.ended])
  if (reason !== 'signal') reportError(reason, log)
  const stopped = await stopInTime(service, log)
  process.exit(reason === 'signal' && stopped ? 0 : exitCodeOf(reason))
}

/** Logs an error as one line; what is not meant for a person keeps its stack. */
function reportError(error: unknown, log: Logger): void {
  if (error instanceof TapelineError) log.error({ code: error.code, fix: error.fix }, error.message)
  else log.error({ err: error }, `Stopped by a defect: ${describeError(error)}`)
}

async function stopInTime(service: RunningService, log: Logger): Promise<boolean> {
  const deliver = AbortSignal.timeout(DELIVER_MS)
  const deadline = new Promise<'late'>((resolve) =>
    setTimeout(() => resolve('late'), DELIVER_MS + CLOSE_MS).unref(),
  )
  try {
    if ((await Promise.race([service.stop(deliver), deadline])) !== 'late') return true
    log.error('The stop took too long and was cut short; a restart heals what was left')
  } catch (error) {
    reportError(error, log)
  }
  return false
}

function exitCodeOf(reason: unknown): number {
  return reason instanceof TapelineError ? reason.exitCode : 1
}
