import { systemClock } from '../../src/foundation/runtime/clock.ts'
import { Continuity } from '../../src/ingestion/continuity/continuity.ts'
import { GapLedger } from '../../src/ingestion/continuity/gap-ledger.ts'
import type { StampedEvent } from '../../src/ingestion/forwarder.ts'
import { type OutgoingMessage, Router } from '../../src/ingestion/messages/message.ts'
import { ReceiptClock } from '../../src/ingestion/messages/receipt-clock.ts'
import { coreAlone } from '../../test/support/core-alone.ts'

const namesWith = (prefix: string) => ({
  trades: `${prefix}trades`,
  bookTicker: `${prefix}book_ticker`,
  depth: `${prefix}depth`,
  gaps: `${prefix}gaps`,
  checkpoints: `${prefix}checkpoints`,
  deadLetters: `${prefix}dead_letters`,
})
const CONNECTION = 1

/** Turns frames into messages as ingestion does, and discards the messages. */
export function decodeAll(
  frames: readonly Buffer[],
  send: (message: OutgoingMessage) => void,
  topicPrefix = '',
): void {
  const clock = systemClock()
  const names = namesWith(topicPrefix)
  const topics = new Map(Object.values(names).map((name) => [name, { id: name, partitions: 3 }]))
  const router = new Router(names, topics, 'microsecond')
  const ledger = new GapLedger(
    () => {},
    () => Date.now(),
  )
  // No timer runs in this stage.
  const never = { stepMs: Number.POSITIVE_INFINITY, freezeMs: Number.POSITIVE_INFINITY }
  const receipts = new ReceiptClock(clock, never)
  const core = coreAlone({
    timeUnit: 'microsecond',
    stamp: () => receipts.stamp(),
    clock,
    continuity: new Continuity<StampedEvent>(ledger),
    router,
    deadLettersTopic: names.deadLetters,
    send,
  })
  core.connected(CONNECTION, { streams: [], subscriptions: [] })
  for (const frame of frames) core.onFrame(frame, CONNECTION)
  const { forwarded } = core.counters
  if (forwarded !== frames.length)
    throw new Error(`${forwarded} of ${frames.length} frames were forwarded, expected all`)
}
