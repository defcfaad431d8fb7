import type { Clock } from '../../foundation/runtime/clock.ts'
import { describeError } from '../../foundation/runtime/errors.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'
import type { ClockStep } from '../messages/receipt-clock.ts'

/**
 * Tracks how far the clock is ahead of the exchange's. Each quote carries the value, and
 * checkpoints store it with the last receipt, so the next instance can tell whether the clock was
 * set in between.
 */
export class ClockOffset {
  /** Milliseconds; null while unknown. */
  aheadMs: number | null = null

  /** Requests the exchange's time. Only logs a failure. */
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
      log.warn({ err: error }, `Requesting the exchange's time failed: ${describeError(error)}`)
    }
  }

  /** @param aheadMs null if unknown */
  note(aheadMs: number | null): void {
    this.aheadMs = aheadMs ?? this.aheadMs
  }

  stepped({ fromMs, toMs }: ClockStep): void {
    if (this.aheadMs !== null) this.aheadMs += toMs - fromMs
  }
}
