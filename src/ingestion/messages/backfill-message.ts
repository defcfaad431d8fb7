import type { RestTrade, RestTradeType } from '../../foundation/binance/trade-rest.ts'

/**
 * A backfilled trade as it goes to Kafka: the stream's own fields without the event time, which REST does not
 * know, and marked as backfilled.
 */
export function backfillJson(
  symbol: string,
  type: RestTradeType,
  trade: RestTrade,
  receiptMs: number,
  receiptUs: number,
): string {
  const { id, price: p, quantity: q, timeMs: T, isBuyerMaker: m, isBestMatch: M, trades } = trade
  const stamp = { source: 'backfill', ingestion_timestamp: receiptMs, ingestion_timestamp_us: receiptUs }
  return type === 'trade'
    ? JSON.stringify({ e: type, s: symbol, t: id, p, q, T, m, M, ...stamp })
    : JSON.stringify({ e: type, s: symbol, a: id, p, q, f: trades?.from, l: trades?.to, T, m, M, ...stamp })
}
