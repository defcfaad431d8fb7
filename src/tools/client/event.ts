import type { FetchedMessage } from '../../foundation/kafka/codec/record-batch.ts'
import { Decoder } from '../../foundation/kafka/message-decoder.ts'
import type { Position } from '../../foundation/kafka/partition.ts'
import type { EventTopic } from '../../foundation/market/event.ts'
import { ABSENT, type EventFields } from '../../foundation/market/event-fields.ts'
import { LevelCursor } from '../../foundation/market/levels.ts'
import type { BookLevel, MarketEvent } from './market-event.ts'

const decoder = new Decoder()

/**
 * Decodes the event of a message of this kind of topic; otherwise a text names the wrong field.
 * @throws TapelineError `SCHEMA` when it has a newer schema than this version knows
 */
export function readEvent(
  kind: EventTopic,
  message: FetchedMessage,
  position: Position,
): MarketEvent | string {
  const reason = decoder.decode(kind, message)
  if (reason !== null) return reason
  const { event } = decoder
  const { type, id, price, quantity } = event
  const received = { symbol: event.symbol.text, ingestionTimestampUs: event.receivedUs, position }
  if (type === 'bookTicker') {
    const { askPrice, askQuantity } = event
    return { type, updateId: id, bidPrice: price, bidQuantity: quantity, askPrice, askQuantity, ...received }
  }
  if (type === 'depth' || type === 'depthSnapshot') {
    const { bytes, epoch } = event
    const bids = levelsOf(bytes, event.bidsStart, event.bidsEnd)
    const asks = levelsOf(bytes, event.asksStart, event.asksEnd)
    if (type === 'depthSnapshot')
      return { type, lastUpdateId: id, limit: event.limit, bids, asks, epoch, ...received }
    const { eventTimeUs, firstId: firstUpdateId } = event
    return { type, firstUpdateId, lastUpdateId: id, eventTimeUs, bids, asks, epoch, ...received }
  }
  const trade = {
    price,
    quantity,
    tradeTimeUs: event.tradeTimeUs,
    eventTimeUs: orNull(event.eventTimeUs),
    isBuyerMaker: event.isBuyerMaker,
    epoch: event.epoch,
    source: event.source,
    ...received,
  }
  if (type !== 'aggTrade') return { type, tradeId: id, ...trade }
  const [firstTradeId, lastTradeId] = [orNull(event.firstTradeId), orNull(event.lastTradeId)]
  return { type, aggTradeId: id, firstTradeId, lastTradeId, ...trade }
}

function levelsOf(bytes: EventFields['bytes'], start: number, end: number): BookLevel[] {
  const levels: BookLevel[] = []
  const cursor = new LevelCursor()
  cursor.begin(bytes, start, end)
  while (cursor.next())
    levels.push([
      bytes.toString('latin1', cursor.priceStart, cursor.priceEnd),
      bytes.toString('latin1', cursor.quantityStart, cursor.quantityEnd),
    ])
  return levels
}

const orNull = (value: number) => (value === ABSENT ? null : value)
