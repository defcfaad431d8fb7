import { TapelineError } from './errors.ts'

/** Under npm, one Ctrl-C arrives twice: from the terminal and from npm. The second is ignored. */
const ECHO_MS = 500

/** Calls back at the first of these signals; a second one exits with 1. @returns ends the listening */
export function onStopSignal(
  stop: (name: NodeJS.Signals) => void,
  signals: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM'],
): () => void {
  let firstAtMs: number | null = null
  const onSignal = (name: NodeJS.Signals) => {
    const nowMs = performance.now()
    if (firstAtMs === null) stop(name)
    firstAtMs ??= nowMs
    if (nowMs - firstAtMs > ECHO_MS) process.exit(1)
  }
  for (const signal of signals) process.on(signal, onSignal)
  return () => {
    for (const signal of signals) process.off(signal, onSignal)
  }
}

/** Runs work that SIGINT and SIGTERM abort; a second one exits. @throws TapelineError `INTERRUPTED` */
export async function interruptible<Result>(work: (signal: AbortSignal) => Promise<Result>): Promise<Result> {
  const interrupted = new AbortController()
  const stopListening = onStopSignal((name) =>
    interrupted.abort(
      new TapelineError('INTERRUPTED', `Interrupted by ${name}; the current step changed nothing`),
    ),
  )
  try {
    return await work(interrupted.signal)
  } finally {
    stopListening()
  }
}
