import { byEventType } from '../market/event.ts'
import type { EventFields } from '../market/event-fields.ts'
import type { CopyRows } from './copy-rows.ts'
import { BOOK_TICKER, type MarketTable, TRADES } from './market-rows.ts'

const OPENING_BRACKET = 0x5b
const QUOTE = 0x22

const REST = Buffer.from('rest')

/** Changes of order books. */
export const DEPTH_UPDATES: MarketTable = {
  name: 'depth_updates',
  columns: [
    ['event_time', 'timestamptz'],
    ['symbol', 'text'],
    ['epoch', 'integer'],
    ['first_update_id', 'bigint'],
    ['last_update_id', 'bigint'],
    ['ingestion_timestamp', 'timestamptz'],
    ['bids', 'bytea'],
    ['asks', 'bytea'],
  ],
  eventType: "'depth'",
  write(rows, event) {
    rows.timeUs(event.eventTimeUs)
    rows.text(event.symbol.bytes)
    rows.integer(event.epoch)
    rows.bigint(event.firstId)
    rows.bigint(event.id)
    rows.timeUs(event.receivedUs)
    writeLevels(rows, event)
  },
}

/** Order books as REST returned them. Keyframes are written by SQL. */
export const DEPTH_SNAPSHOTS: MarketTable = {
  name: 'depth_snapshots',
  columns: [
    ['ingestion_timestamp', 'timestamptz'],
    ['symbol', 'text'],
    ['epoch', 'integer'],
    ['last_update_id', 'bigint'],
    ['kind', 'text'],
    ['level_limit', 'integer'],
    ['bid_horizon', 'numeric'],
    ['ask_horizon', 'numeric'],
    ['bids', 'bytea'],
    ['asks', 'bytea'],
  ],
  eventType: "'depthSnapshot'",
  write(rows, event) {
    const { bytes, limit } = event
    rows.timeUs(event.receivedUs)
    rows.text(event.symbol.bytes)
    rows.integer(event.epoch)
    rows.bigint(event.id)
    rows.text(REST)
    rows.integer(limit)
    writeHorizon(rows, bytes, event.bidsEnd, event.bidCount < limit)
    writeHorizon(rows, bytes, event.asksEnd, event.askCount < limit)
    writeLevels(rows, event)
  },
}

const TABLES = byEventType((type): MarketTable => {
  switch (type) {
    case 'trade':
    case 'aggTrade':
    case 'blockTrade':
      return TRADES
    case 'bookTicker':
      return BOOK_TICKER
    case 'depth':
      return DEPTH_UPDATES
    case 'depthSnapshot':
      return DEPTH_SNAPSHOTS
  }
})

/** The table of each event type. */
export const TABLE_OF: Readonly<typeof TABLES> = TABLES

function writeLevels(rows: CopyRows, event: EventFields): void {
  const { bytes } = event
  rows.levels(bytes, event.bidsStart, event.bidsEnd, event.bidCount)
  rows.levels(bytes, event.asksStart, event.asksEnd, event.askCount)
}

/** A side is exact up to its last level; it is complete if it has fewer levels than were requested. */
function writeHorizon(rows: CopyRows, bytes: Buffer, end: number, isComplete: boolean): void {
  if (isComplete) {
    rows.null()
    return
  }
  const price = bytes.lastIndexOf(OPENING_BRACKET, end - 1) + 2
  rows.numeric(bytes, price, bytes.indexOf(QUOTE, price))
}
