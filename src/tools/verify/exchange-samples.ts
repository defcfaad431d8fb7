import type { RestTrade } from '../../foundation/binance/trade-rest.ts'
import { isTradeType, TRADE_TYPES, type TradeType } from '../../foundation/market/event.ts'
import type { Database } from '../../foundation/store/database.ts'
import { type ExchangeRest, whyNot, withinBudget } from './exchange-requests.ts'
import { checkTails } from './exchange-tails.ts'
import { atId, finding, split, trimmed, unchecked } from './findings.ts'
import type { Example, Report, SequenceReport } from './report-types.ts'
import { IN_SEQUENCE, type Scope, sequenceValues } from './scope.ts'
import { CHECK_LIMIT_MS } from './verify.ts'

/** Random ids per day, in addition to its first and last id. */
const RANDOM_PER_DAY = 3

export interface ExchangeSamples extends ExchangeRest {
  readonly random: () => number
}

interface Stored {
  readonly id: number
  readonly price: string
  readonly quantity: string
  readonly timeUs: number
  readonly isBuyerMaker: boolean
  readonly from: number | null
  readonly to: number | null
}

const DAYS = `SELECT time_bucket('1 day', trade_time) AS day, min(trade_id)::float8 AS first, max(trade_id)::float8 AS last
  FROM trades WHERE ${IN_SEQUENCE} GROUP BY 1 ORDER BY 1`

const ROWS = `SELECT trade_id::float8 AS id, price::text, quantity::text, (extract(epoch FROM trade_time) * 1000000)::float8 AS "timeUs",
    is_buyer_maker AS "isBuyerMaker", first_trade_id::float8 AS "from", last_trade_id::float8 AS "to"
  FROM trades WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND trade_time >= $4::timestamptz
    AND trade_time < $4::timestamptz + interval '1 day' AND trade_id = ANY($5::bigint[]) ORDER BY trade_id`

/** The result of {@link compareWithExchange}; `compared` counts rows of which the exchange gave its own. */
type Comparison = Pick<Report, 'findings' | 'notChecked'> & { readonly compared: number }

/** Adds the result of {@link compareWithExchange} to a report. */
export function withComparison(report: Report, { findings, notChecked, compared }: Comparison): Report {
  return {
    ...report,
    findings: [...findings, ...report.findings],
    notChecked: [...report.notChecked, ...notChecked],
    compared,
    verdict: findings.length > 0 ? 'not clean' : report.verdict,
  }
}

/**
 * Compares stored rows with the current answers of the exchange's REST: for each day, symbol and
 * type the first id, the last id and some random ones. Searches for trades after the last row, too.
 * Covers only the latest epoch, since REST has no other. A refusal that stops REST, such as a ban,
 * ends the comparison. A type of which no row could be compared is a finding.
 * @param report of the same rows
 */
export async function compareWithExchange(
  database: Database,
  scope: Scope,
  report: Pick<Report, 'takenAt' | 'watermark' | 'sequences'>,
  exchange: ExchangeSamples,
): Promise<Comparison> {
  // REST has no past changes of order books.
  const sequences = report.sequences.flatMap((one) => {
    const { eventType } = one
    return isTradeType(eventType) ? [{ ...one, eventType }] : []
  })
  const ask = withinBudget(exchange)
  const { remarks, unanswered: silent } = await checkTails(database, scope, report, ask, exchange.signal)
  const latest = sequences.filter(
    ({ symbol, eventType, epoch }) =>
      !sequences.some((o) => o.symbol === symbol && o.eventType === eventType && o.epoch > epoch),
  )
  const sampled = new Set<TradeType>()
  const answered = new Set<TradeType>()
  let compared = 0
  for (const sequence of latest) {
    const { symbol, eventType, epoch } = sequence
    const differing: Example[] = []
    const unanswered: Example[] = []
    for (const row of await sample(database, scope, sequence, exchange.random)) {
      sampled.add(eventType)
      const answer = await ask({ type: eventType, symbol, fromId: row.id, limit: 1 })
      const found = answer.kind === 'rows' ? answer.rows.find(({ id }) => id === row.id) : undefined
      if (found === undefined) {
        unanswered.push(atId(row.id, whyNot(answer)))
        continue
      }
      answered.add(eventType)
      compared++
      const difference = differenceOf(row, found)
      if (difference !== '') differing.push(atId(row.id, difference))
    }
    if (differing.length > 0) {
      const summary = "of the sampled rows differ from the exchange's answer"
      const about = { symbol, eventType, epoch, count: differing.length, examples: differing, summary }
      remarks.push(finding({ check: 'exchange', kind: 'differs', severity: 'failure', ...about }))
    }
    if (unanswered.length > 0) {
      const what = `${eventType} rows that the exchange did not return`
      remarks.push(unchecked(what, { symbol, count: unanswered.length, examples: unanswered }))
    }
  }
  const notCompared = sampled.difference(answered).union(silent)
  for (const eventType of TRADE_TYPES.filter((type) => notCompared.has(type))) {
    // Silence of the exchange is no agreement.
    const summary = `no ${eventType} could be compared: the exchange answered no request for them, or with other rows`
    remarks.push(
      finding({ check: 'exchange', kind: 'not compared', severity: 'failure', eventType, summary }),
    )
  }
  return { ...split(remarks), compared }
}

function sample(
  database: Database,
  scope: Scope,
  sequence: SequenceReport,
  random: () => number,
): Promise<Stored[]> {
  return database.transaction(
    async (connection) => {
      const { symbol, eventType, epoch } = sequence
      const days = await connection.query<Day>(DAYS, sequenceValues(scope, sequence))
      const stored: Stored[] = []
      for (const { day, first, last } of days.rows) {
        const between = Array.from(
          { length: RANDOM_PER_DAY },
          () => first + Math.floor(random() * (last - first)),
        )
        const values = [symbol, eventType, epoch, day.toISOString(), [...new Set([first, ...between, last])]]
        stored.push(...(await connection.query<Stored>(ROWS, values)).rows)
      }
      return stored
    },
    { isSnapshot: true, limitMs: CHECK_LIMIT_MS },
  )
}

interface Day {
  readonly day: Date
  readonly first: number
  readonly last: number
}

/** Empty when all values are equal. */
function differenceOf(row: Stored, { price, quantity, timeUs, isBuyerMaker, trades }: RestTrade): string {
  const pairs = [
    ['price', trimmed(row.price), trimmed(price)],
    ['quantity', trimmed(row.quantity), trimmed(quantity)],
    ['time', row.timeUs, timeUs],
    ['is_buyer_maker', row.isBuyerMaker, isBuyerMaker],
    // An invalidated aggTrade has no trades in either source.
    ['first_trade_id', row.from ?? -1, trades?.from ?? -1],
    ['last_trade_id', row.to ?? -1, trades?.to ?? -1],
  ] as const
  return pairs
    .filter(([, ours, theirs]) => ours !== theirs)
    .map(([name, ours, theirs]) => `${name} ${ours}, at the exchange ${theirs}`)
    .join('; ')
}
