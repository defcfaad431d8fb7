import { describeKafkaError } from '../../foundation/kafka/broker-errors.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'

/** Interval at which the same reason is logged again. */
const REPEAT_LOG_MS = 60_000

/** Tracks why Kafka does not acknowledge, for the log and for readiness. */
export class SendProblem {
  readonly #log: Logger
  #reason: string | null = null
  /** When each reason was logged: set-aside partitions fail in turn, each for its reason. */
  readonly #loggedAtMs = new Map<string, number>()

  constructor(log: Logger) {
    this.#log = log
  }

  /** Null when nothing has failed since the last acknowledgement. */
  get reason(): string | null {
    return this.#reason
  }

  /** Logs a reason once, and again after a minute. */
  note(error: unknown, waitedMs: number, nowMs: number): void {
    const reason = describeKafkaError(error)
    this.#reason = reason
    for (const [known, atMs] of this.#loggedAtMs)
      if (nowMs - atMs >= REPEAT_LOG_MS) this.#loggedAtMs.delete(known)
    if (this.#loggedAtMs.has(reason)) return
    this.#loggedAtMs.set(reason, nowMs)
    this.#log.warn(
      { err: error, waitedMs: Math.round(waitedMs) },
      `Kafka did not acknowledge a batch, retrying: ${reason}`,
    )
  }

  clear(): void {
    if (this.#reason === null) return
    this.#reason = null
    this.#loggedAtMs.clear()
    this.#log.info('Kafka acknowledges again')
  }
}
