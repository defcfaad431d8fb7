import type { Clock } from '../../foundation/runtime/clock.ts'
import { describeError } from '../../foundation/runtime/errors.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'
import type { ClockStep } from '../messages/receipt-clock.ts'

/**
 * How far the clock is ahead of the exchange's. Each quote carries it, and checkpoints have it beside the last receipt, so
 * that the next instance knows whether the clock was set between the two.
 */
export class ClockOffset {
  /** Milliseconds; null while it is not known. */
  aheadMs: number | null = null

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
    this.aheadMs = aheadMs ?? this.aheadMs
  }

  stepped({ fromMs, toMs }: ClockStep): void {
    if (this.aheadMs !== null) this.aheadMs += toMs - fromMs
  }
}
