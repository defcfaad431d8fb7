import { TapelineError } from '../foundation/runtime/errors.ts'

/**
 * Under npm, one Ctrl-C arrives twice, from the terminal and from npm. A second signal within this
 * time is ignored.
 */
const ECHO_MS = 500

/**
 * Runs work that SIGINT and SIGTERM abort. A second signal ends the process at once.
 *
 * @throws TapelineError `INTERRUPTED` when the work rejects for that reason
 */
export async function interruptible<Result>(work: (signal: AbortSignal) => Promise<Result>): Promise<Result> {
  const interrupted = new AbortController()
  let firstAtMs: number | null = null
  const onSignal = (name: NodeJS.Signals) => {
    const nowMs = performance.now()
    firstAtMs ??= nowMs
    if (nowMs - firstAtMs > ECHO_MS) process.exit(1)
    interrupted.abort(
      new TapelineError('INTERRUPTED', `Interrupted by ${name}; the current step changed nothing`),
    )
  }
  process.on('SIGINT', onSignal)
  process.on('SIGTERM', onSignal)
  try {
    return await work(interrupted.signal)
  } finally {
    process.off('SIGINT', onSignal)
    process.off('SIGTERM', onSignal)
  }
}
