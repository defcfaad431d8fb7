/** When a frame was received: taken right after `JSON.parse` returned, before any queue. */
export interface ReceiptStamp {
  /** Integer milliseconds since the Unix epoch. */
  readonly ms: number
  /** Integer microseconds; strictly increasing over all streams of a process. */
  readonly us: number
}

/**
 * Stamps receipts. In real data more than half of the trades share their receipt millisecond with a bookTicker of
 * the same symbol, and bookTicker has no other time: only strictly increasing microseconds keep the order of quote
 * and trade. Where the clock stands still or steps back, they go on by one.
 *
 * @param wallMicros microseconds since the Unix epoch
 */
export function receiptStamper(wallMicros: () => number): () => ReceiptStamp {
  let lastUs = 0
  return () => {
    const wallUs = wallMicros()
    lastUs = Math.max(lastUs + 1, wallUs)
    return { ms: Math.floor(wallUs / 1000), us: lastUs }
  }
}
