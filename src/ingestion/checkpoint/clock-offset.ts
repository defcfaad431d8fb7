import type { Clock } from '../../foundation/runtime/clock.ts'
import { describeError } from '../../foundation/runtime/errors.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'
import type { ClockStep } from '../messages/receipt-clock.ts'
import type { AcknowledgedState } from './acknowledged-state.ts'

/**
 * How far the clock is ahead of the exchange's. Checkpoints have it beside the last receipt, so that the next instance
 * knows whether the clock was set between the two.
 */
export class ClockOffset {
  readonly #memory: AcknowledgedState
  /** Milliseconds; null while it is not known. */
  aheadMs: number | null = null
  /** Steps of the clock before which something is not acknowledged yet. */
  #stepsUnacknowledged = 0

  constructor(memory: AcknowledgedState) {
    this.#memory = memory
  }

  /** Asks the exchange for its time. Only logs when that fails. */
  async measure(
    clock: Clock,
    serverTimeMs: (signal: AbortSignal) => Promise<number>,
    log: Logger,
    signal: AbortSignal,
  ): Promise<void> {
    const beforeUs = clock.wallMicros()
    try {
      const serverMs = await serverTimeMs(signal)
      this.note((beforeUs + clock.wallMicros()) / 2000 - serverMs)
    } catch (error) {
      log.warn({ err: error }, `The exchange's time is not known: ${describeError(error)}`)
    }
  }

  /** @param aheadMs null where it is not known */
  note(aheadMs: number | null): void {
    if (aheadMs === null) return
    this.aheadMs = aheadMs
    if (this.#stepsUnacknowledged === 0) this.#memory.clockAheadMs = aheadMs
  }

  /**
   * @param acknowledged resolves when everything that was received before the step is acknowledged: it has receipts of
   *   the clock as it was
   */
  async stepped({ fromMs, toMs }: ClockStep, acknowledged: Promise<void>): Promise<void> {
    if (this.aheadMs !== null) this.aheadMs += toMs - fromMs
    this.#stepsUnacknowledged++
    await acknowledged
    this.#stepsUnacknowledged--
    this.note(this.aheadMs)
  }
}
