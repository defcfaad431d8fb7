/** A service that runs until it is stopped or cannot go on. */
export interface RunningService {
  /** Where it answers over HTTP. */
  readonly url: string
  /** Resolves with the error that ended it; never when it is stopped. */
  readonly ended: Promise<unknown>
  /**
   * Stops taking in, delivers what it holds and closes.
   *
   * @param signal aborts when it should give up delivering
   * @throws TapelineError `STOPPED_DIRTY` saying how much was left and that a restart heals it
   */
  stop(signal: AbortSignal): Promise<void>
}
