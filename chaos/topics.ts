import { isFields } from '../src/market/payload.ts'
import type { Database } from '../src/store/database.ts'
import { messagesOf } from '../test/support/messages.ts'

/** What the topics hold. A repeat is another message of an event that is there already. */
export interface TopicCheck {
  readonly messages: number
  readonly repeatedTrades: number
  readonly repeatedQuotes: number
  readonly violations: readonly string[]
}

/** The ids of one sequence in Kafka. */
interface Seen {
  readonly ids: Set<number>
  first: number
  last: number
}

/**
 * Counts what Kafka holds more than once, which it may after a crash (specification G3), and sees that the tables begin and
 * end where the topics do.
 */
export async function checkTopics(
  brokers: string,
  topics: { readonly trades: string; readonly bookTicker: string },
  database: Database,
): Promise<TopicCheck> {
  const totals = { messages: 0, repeatedTrades: 0, repeatedQuotes: 0 }
  const trades = new Map<string, Seen>()
  const quotes = new Map<string, Seen>()
  for (const topic of [topics.trades, topics.bookTicker]) {
    for await (const { value } of messagesOf(topic, brokers.split(','))) {
      totals.messages++
      const event: unknown = JSON.parse(String(value))
      if (!isFields(event)) continue
      const { e, s } = event
      if (e === 'trade' || e === 'aggTrade') {
        if (isRepeat(trades, `${s} ${e}`, Number(e === 'trade' ? event['t'] : event['a'])))
          totals.repeatedTrades++
      } else if (isRepeat(quotes, String(s), Number(event['u']))) totals.repeatedQuotes++
    }
  }
  const violations: string[] = []
  for (const [name, { ids, first, last }] of trades) {
    const [symbol, type] = name.split(' ')
    const { rows } = await database.query<{ first: string; last: string; ids: number }>(
      `SELECT min(trade_id) AS first, max(trade_id) AS last, count(DISTINCT trade_id)::float8 AS ids
       FROM trades WHERE symbol = $1 AND event_type = $2`,
      [symbol, type],
    )
    const stored = `${rows[0]?.ids} ids, ${rows[0]?.first} to ${rows[0]?.last}`
    const sent = `${ids.size} ids, ${first} to ${last}`
    if (stored !== sent) violations.push(`${name}: Kafka holds ${sent}, the table ${stored}.`)
  }
  return { ...totals, violations }
}

function isRepeat(sequences: Map<string, Seen>, name: string, id: number): boolean {
  const seen = sequences.get(name) ?? { ids: new Set(), first: id, last: id }
  sequences.set(name, seen)
  const isKnown = seen.ids.has(id)
  seen.ids.add(id)
  seen.first = Math.min(seen.first, id)
  seen.last = Math.max(seen.last, id)
  return isKnown
}
