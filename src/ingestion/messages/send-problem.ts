import { describeKafkaError } from '../../foundation/kafka/broker-errors.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'

/** How often the same reason is logged again. */
const REPEAT_LOG_MS = 60_000

/** Why Kafka does not acknowledge, for the log and for readiness. */
export class SendProblem {
  readonly #log: Logger
  #current: { readonly reason: string; readonly loggedAtMs: number } | null = null

  constructor(log: Logger) {
    this.#log = log
  }

  /** Null when nothing has failed since the last acknowledgement. */
  get reason(): string | null {
    return this.#current?.reason ?? null
  }

  /** Logs a reason once, and again after a minute. */
  note(error: unknown, waitedMs: number, nowMs: number): void {
    const reason = describeKafkaError(error)
    if (this.#current?.reason === reason && nowMs - this.#current.loggedAtMs < REPEAT_LOG_MS) return
    this.#current = { reason, loggedAtMs: nowMs }
    this.#log.warn(
      { err: error, waitedMs: Math.round(waitedMs) },
      `Kafka did not acknowledge a batch, retrying: ${reason}`,
    )
  }

  clear(): void {
    if (this.#current === null) return
    this.#current = null
    this.#log.info('Kafka acknowledges again')
  }
}
