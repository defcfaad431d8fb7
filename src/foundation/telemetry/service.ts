/** A service that runs until it is stopped or fails. */
export interface RunningService {
  /** Its base URL. */
  readonly url: string
  /** Resolves with the error that ended it; never resolves when it is stopped. */
  readonly ended: Promise<unknown>
  /**
   * Stops taking input, delivers what is queued and closes.
   *
   * @param signal aborts when it must stop delivering
   * @throws TapelineError `STOPPED_DIRTY` saying how much was left and that a restart recovers it
   */
  stop(signal: AbortSignal): Promise<void>
}
