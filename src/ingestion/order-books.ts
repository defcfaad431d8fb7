import type { WeightBudget } from '../foundation/binance/weight-budget.ts'
import { streamName } from '../foundation/market/event.ts'
import type { TimeUnit } from '../foundation/market/time-unit.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import { Anchors } from './anchors/anchors.ts'
import type { PriceSample } from './anchors/price-sample.ts'
import type { RestCaller } from './backfill/rest-caller.ts'
import type { IngestionConfig } from './config.ts'
import type { Continuity } from './continuity/continuity.ts'
import type { Core, Delivery } from './core.ts'
import type { StampedEvent } from './forwarder.ts'
import type { Router } from './messages/message.ts'
import type { ReceiptClock } from './messages/receipt-clock.ts'
import type { Ports } from './ports.ts'

export interface OrderBooksContext {
  readonly config: Pick<IngestionConfig, 'eventTypes' | 'backoff' | 'snapshotMaxAgeMs'>
  readonly ports: Ports
  readonly symbols: ReadonlySet<string>
  readonly producer: Delivery
  readonly source: string
  readonly timeUnit: TimeUnit
  readonly log: Logger
}

export interface OrderBooksParts {
  readonly core: Core
  readonly continuity: Continuity<StampedEvent>
  readonly router: Router
  readonly receipts: ReceiptClock
  readonly rest: RestCaller
  readonly budget: WeightBudget
  readonly prices: PriceSample
}

/** Connects the snapshots of order books with the pipeline; null if none are recorded. */
export function orderBooks(
  { config, ports, symbols, producer, source, timeUnit, log }: OrderBooksContext,
  { core, continuity, router, receipts, rest, budget, prices }: OrderBooksParts,
): Anchors | null {
  if (!config.eventTypes.includes('depth')) return null
  const { clock, random } = ports
  return new Anchors(
    {
      ...{ clock, random, backoff: config.backoff, rest, prices },
      fetch: ports.exchange.fetchBook({ source, timeUnit }),
      weightPerMinute: budget.perMinute,
      maxAgeMs: config.snapshotMaxAgeMs,
    },
    {
      symbols: () => [...symbols].filter((symbol) => core.isSubscribed(streamName(symbol, 'depth'))),
      chainOf: (stream) => continuity.chainOf(stream),
      activityOf: (stream) => core.rates.lastMinute(stream, clock.monotonicMs()),
      placeOf: (symbol, epoch) => router.place(symbol, 'depthSnapshot', epoch),
      isTaken: (symbol) => !producer.batches.held.has(router.place(symbol, 'depthSnapshot', 0)),
      stamp: () => receipts.stamp(),
      send: (message) => producer.queue.push(message),
      whenRoom: (signal) => producer.queue.whenRoom(signal),
    },
    log,
  )
}
