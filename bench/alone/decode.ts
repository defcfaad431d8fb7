import { Continuity } from '../../src/ingestion/continuity.ts'
import { FrameHandler, type StampedEvent } from '../../src/ingestion/frame-handler.ts'
import { GapLedger } from '../../src/ingestion/gap-ledger.ts'
import type { OutgoingMessage } from '../../src/ingestion/message-queue.ts'
import { receiptStamper } from '../../src/ingestion/receipt-stamp.ts'
import { Router } from '../../src/ingestion/router.ts'
import { systemClock } from '../../src/timing/clock.ts'

const NAMES = {
  trades: 'trades',
  bookTicker: 'book_ticker',
  gaps: 'gaps',
  checkpoints: 'checkpoints',
  deadLetters: 'dead_letters',
}
const CONNECTION = 1

/** From frames to messages as ingestion does it, with nothing behind. */
export function decodeAll(frames: readonly Buffer[], send: (message: OutgoingMessage) => void): void {
  const clock = systemClock()
  const topics = new Map(Object.values(NAMES).map((name) => [name, { id: name, partitions: 3 }]))
  const router = new Router(NAMES, topics)
  const ledger = new GapLedger(
    () => {},
    () => {},
    () => Date.now(),
  )
  const handler = new FrameHandler({
    stamp: receiptStamper(() => clock.wallMicros()),
    clock,
    continuity: new Continuity<StampedEvent>(ledger, () => {}),
    route: (stream, symbol, type, epoch) => router.route(stream, symbol, type, epoch),
    deadLettersTopic: NAMES.deadLetters,
    send,
  })
  handler.merge.opened(CONNECTION, [])
  for (const frame of frames) handler.handle(frame, CONNECTION, () => {})
  const { forwarded } = handler.counters
  if (forwarded !== frames.length)
    throw new Error(`${frames.length} frames, ${forwarded} of them were forwarded`)
}
