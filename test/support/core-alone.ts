import type { TimeUnit } from '../../src/foundation/market/time-unit.ts'
import type { Clock } from '../../src/foundation/runtime/clock.ts'
import { StreamRates } from '../../src/ingestion/connection/stream-rates.ts'
import type { Continuity } from '../../src/ingestion/continuity/continuity.ts'
import { Core, type CoreOptions, type Delivery } from '../../src/ingestion/core.ts'
import type { StampedEvent } from '../../src/ingestion/forwarder.ts'
import type { OutgoingMessage } from '../../src/ingestion/messages/message.ts'
import type { ReceiptStamp } from '../../src/ingestion/messages/receipt-clock.ts'

/** A message of one trade. */
export function outgoing(fields: Partial<OutgoingMessage> = {}): OutgoingMessage {
  return {
    topic: 'trades',
    partition: 0,
    key: null,
    value: Buffer.from('{}'),
    headers: new Map(),
    timestampMs: 0,
    mark: { symbol: 'BTCUSDT', type: 'trade', epoch: 0, firstId: 1, id: 1, timeMs: 0 },
    queuedAtMs: 0,
    ...fields,
  }
}

/** A way to Kafka that takes everything at once. */
export function deliveryTo(push: (message: OutgoingMessage) => void): Delivery {
  return {
    queue: { push, whenRoom: async () => {} },
    batches: { held: { has: () => false } },
    settled: async () => {},
  }
}

export interface CoreAloneOptions
  extends Pick<CoreOptions, 'router' | 'deadLettersTopic'>,
    Partial<Pick<CoreOptions, 'clockOffset' | 'onFatal'>> {
  readonly timeUnit?: TimeUnit
  readonly clock: Clock
  readonly stamp: () => ReceiptStamp
  readonly continuity: Continuity<StampedEvent>
  readonly send: (message: OutgoingMessage) => void
}

/** Ingestion's core without connections, REST and Kafka. It throws fatal errors unless they are taken. */
export function coreAlone({ stamp, send, ...options }: CoreAloneOptions): Core {
  return new Core({
    timeUnit: 'millisecond',
    clockOffset: { aheadMs: null },
    onFatal: (error) => {
      throw error
    },
    ...options,
    receipts: { stampFrame: stamp, stamp },
    rates: new StreamRates(),
    symbols: new Set(),
    silence: { watch() {} },
    prices: { isOpen: false, note() {} },
    producer: deliveryTo(send),
    log: { warn() {} },
  })
}
