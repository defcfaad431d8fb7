import { ABSENT, type EventFields } from '../foundation/market/event-fields.ts'

/** When the rows of a table happened and were received, by the index of the row. */
export class RowLatency {
  /** Milliseconds since the Unix epoch; not a number for a row that has no event time, or is late by its nature: backfilled. */
  readonly eventMs: number[] = []
  /** Microseconds since the Unix epoch; not a number for a backfilled row. */
  readonly receivedUs: number[] = []

  add({ type, eventTimeMs, receivedUs, isBackfill }: EventFields): void {
    const hasEventTime = type !== 'bookTicker' && eventTimeMs !== ABSENT && !isBackfill
    this.eventMs.push(hasEventTime ? eventTimeMs : Number.NaN)
    this.receivedUs.push(isBackfill ? Number.NaN : receivedUs)
  }

  remove(index: number): void {
    this.eventMs.splice(index, 1)
    this.receivedUs.splice(index, 1)
  }
}
