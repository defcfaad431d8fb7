import { isFields } from '../src/foundation/market/payload.ts'
import type { Database } from '../src/foundation/store/database.ts'
import { messagesOf } from '../test/support/messages.ts'

/** Figures of the topics. A duplicate is a further message of the same event. */
export interface TopicCheck {
  readonly messages: number
  readonly repeatedTrades: number
  readonly repeatedQuotes: number
  /** Diffs and snapshots. Two connections may end different diffs with one id. */
  readonly repeatedBooks: number
  /**
   * Messages with a lower id and an earlier receipt than the previous message of their stream,
   * without duplicates and backfilled ones. During a rollover the order is that of the ids: frames
   * of the new connection wait for the old one.
   */
  readonly outOfOrder: number
  readonly violations: readonly string[]
}

/** The ids of one stream in Kafka. */
interface Seen {
  readonly ids: Set<number>
  first: number
  last: number
  /** The last message that came over the stream. */
  latest: { readonly id: number; readonly receivedUs: number }
}

const STORED = {
  trades: `SELECT min(trade_id) AS first, max(trade_id) AS last, count(DISTINCT trade_id)::float8 AS ids
    FROM trades WHERE symbol = $1 AND event_type = $2`,
  depthUpdate: `SELECT min(last_update_id) AS first, max(last_update_id) AS last, count(DISTINCT last_update_id)::float8 AS ids
    FROM depth_updates WHERE symbol = $1 AND $2 = 'depthUpdate'`,
  depthSnapshot: `SELECT min(last_update_id) AS first, max(last_update_id) AS last, count(DISTINCT last_update_id)::float8 AS ids
    FROM depth_snapshots WHERE symbol = $1 AND $2 = 'depthSnapshot' AND kind = 'rest'`,
  quotes: `SELECT min(update_id) AS first, max(update_id) AS last, count(DISTINCT update_id)::float8 AS ids
    FROM book_ticker WHERE symbol = $1 AND $2 = 'bookTicker'`,
}

/** Fields of messages that have the id, if not `u`. */
const ID_FIELDS: Readonly<Record<string, string>> = {
  trade: 't',
  aggTrade: 'a',
  depthSnapshot: 'lastUpdateId',
}

function queryOf(type: string | undefined): string {
  if (type === 'depthUpdate' || type === 'depthSnapshot') return STORED[type]
  return type === 'bookTicker' ? STORED.quotes : STORED.trades
}

/**
 * Counts duplicates in Kafka, which a crash may cause (specification G3). Checks that the tables
 * have as many events as the topics, with the same first and last id.
 */
export async function checkTopics(
  brokers: string,
  topics: { readonly trades: string; readonly bookTicker: string; readonly depth: string },
  database: Database,
): Promise<TopicCheck> {
  const totals = { messages: 0, repeatedTrades: 0, repeatedQuotes: 0, repeatedBooks: 0, outOfOrder: 0 }
  const streams = new Map<string, Seen>()
  for (const topic of [topics.trades, topics.bookTicker, topics.depth]) {
    for await (const { value } of messagesOf(topic, brokers.split(','))) {
      totals.messages++
      const event: unknown = JSON.parse(String(value))
      if (!isFields(event)) throw new Error(`${topic} contains an invalid message: ${String(value)}`)
      const { e: type = 'bookTicker', s: symbol } = event
      const id = Number(event[ID_FIELDS[String(type)] ?? 'u'])
      const seen = streams.get(`${symbol} ${type}`) ?? {
        ids: new Set(),
        first: id,
        last: id,
        latest: { id, receivedUs: 0 },
      }
      streams.set(`${symbol} ${type}`, seen)
      if (seen.ids.has(id)) {
        if (type === 'bookTicker') totals.repeatedQuotes++
        else if (String(type).startsWith('depth')) totals.repeatedBooks++
        else totals.repeatedTrades++
        continue
      }
      seen.ids.add(id)
      seen.first = Math.min(seen.first, id)
      seen.last = Math.max(seen.last, id)
      if (event['source'] === 'backfill') continue
      // REST may answer with an older book.
      if (type === 'depthSnapshot') continue
      const receivedUs = Number(event['ingestion_timestamp_us'])
      if (receivedUs <= seen.latest.receivedUs && id < seen.latest.id) totals.outOfOrder++
      seen.latest = { id, receivedUs }
    }
  }
  const violations: string[] = []
  if (totals.outOfOrder > 0)
    violations.push(
      `${totals.outOfOrder} messages in Kafka follow one of their stream that has a higher id and was received later.`,
    )
  for (const [name, { ids, first, last }] of streams) {
    const [symbol, type] = name.split(' ')
    const query = queryOf(type)
    const { rows } = await database.query<{ first: string; last: string; ids: number }>(query, [symbol, type])
    const stored = `${rows[0]?.ids} ids, ${rows[0]?.first} to ${rows[0]?.last}`
    const sent = `${ids.size} ids, ${first} to ${last}`
    if (stored !== sent) violations.push(`${name}: Kafka has ${sent}, the table ${stored}.`)
  }
  return { ...totals, violations }
}
