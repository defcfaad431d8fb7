import { TapelineError } from '../foundation/runtime/errors.ts'

/** One Ctrl-C under npm comes twice, from the terminal and from npm: that is no second one. */
const ECHO_MS = 500

/**
 * Runs the work of a command that SIGINT and SIGTERM abort; a second signal ends the process at once.
 *
 * @throws TapelineError `INTERRUPTED` when the work rejects because of that
 */
export async function interruptible<Result>(work: (signal: AbortSignal) => Promise<Result>): Promise<Result> {
  const interrupted = new AbortController()
  let firstAtMs: number | null = null
  const onSignal = (name: NodeJS.Signals) => {
    const nowMs = performance.now()
    firstAtMs ??= nowMs
    if (nowMs - firstAtMs > ECHO_MS) process.exit(1)
    interrupted.abort(
      new TapelineError('INTERRUPTED', `Interrupted by ${name}; nothing was changed by the step under way`),
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
