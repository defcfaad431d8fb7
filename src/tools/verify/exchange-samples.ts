import type { RestTrade } from '../../foundation/binance/trade-rest.ts'
import { byTradeType, TRADE_TYPES, type TradeType } from '../../foundation/market/event.ts'
import type { Database } from '../../foundation/store/database.ts'
import { ExchangeRequests, type ExchangeRest, whyNot } from './exchange-requests.ts'
import { checkTails } from './exchange-tails.ts'
import { atId, finding, unchecked } from './findings.ts'
import type { Example, Finding, NotChecked, Report } from './report-types.ts'
import { type Scope, timeBounds } from './scope.ts'
import { CHECK_LIMIT_MS } from './verify.ts'

/** Random ids per day, in addition to its first and last id. */
const RANDOM_PER_DAY = 3

export interface ExchangeSamples extends ExchangeRest {
  /** A number in [0, 1). */
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
  FROM trades WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND trade_time >= $4::timestamptz AND trade_time < $5::timestamptz
  GROUP BY 1 ORDER BY 1`

const ROWS = `SELECT trade_id::float8 AS id, price::text, quantity::text, (extract(epoch FROM trade_time) * 1000000)::float8 AS "timeUs",
    is_buyer_maker AS "isBuyerMaker", first_trade_id::float8 AS "from", last_trade_id::float8 AS "to"
  FROM trades WHERE symbol = $1 AND event_type = $2 AND epoch = $3 AND trade_time >= $4::timestamptz
    AND trade_time < $4::timestamptz + interval '1 day' AND trade_id = ANY($5::bigint[]) ORDER BY trade_id`

/** The result of {@link compareWithExchange}. */
interface Comparison {
  readonly findings: readonly Finding[]
  readonly notChecked: readonly NotChecked[]
  /** Rows of which the exchange gave its own. */
  readonly compared: number
}

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
 *
 * @param report of the same rows
 */
export async function compareWithExchange(
  database: Database,
  scope: Scope,
  report: Pick<Report, 'takenAt' | 'watermark' | 'sequences'>,
  exchange: ExchangeSamples,
): Promise<Comparison> {
  const { sequences } = report
  const requests = new ExchangeRequests(exchange)
  const tails = await checkTails(database, scope, report, requests)
  const latest = sequences.filter(
    ({ symbol, eventType, epoch }) =>
      !sequences.some((o) => o.symbol === symbol && o.eventType === eventType && o.epoch > epoch),
  )
  const findings: Finding[] = [...tails.findings]
  const notChecked: NotChecked[] = [...tails.notChecked]
  const sampled = byTradeType(() => 0)
  const compared = byTradeType(() => 0)
  for (const { symbol, eventType, epoch } of latest) {
    const differing: Example[] = []
    const unanswered: Example[] = []
    for (const row of await sample(database, scope, [symbol, eventType, epoch], exchange.random)) {
      sampled[eventType]++
      const answer = await requests.ask({ type: eventType, symbol, fromId: row.id, limit: 1 })
      const found = answer.kind === 'rows' ? answer.rows.find(({ id }) => id === row.id) : undefined
      if (found === undefined) unanswered.push(atId(row.id, whyNot(answer)))
      else {
        compared[eventType]++
        const difference = differenceOf(row, found)
        if (difference !== '') differing.push(atId(row.id, difference))
      }
    }
    if (differing.length > 0)
      findings.push(
        finding({
          check: 'exchange',
          kind: 'differs',
          severity: 'failure',
          symbol,
          eventType,
          epoch,
          count: differing.length,
          summary: "of the sampled rows differ from the exchange's answer",
          examples: differing,
        }),
      )
    if (unanswered.length > 0) {
      const what = `${eventType} rows that the exchange did not return`
      notChecked.push(unchecked(what, { symbol, count: unanswered.length, examples: unanswered }))
    }
  }
  for (const type of TRADE_TYPES) {
    const isNoneCompared = sampled[type] > 0 && compared[type] === 0
    if (isNoneCompared || (tails.asked[type] > 0 && tails.answered[type] === 0))
      findings.push(notCompared(type))
  }
  return { findings, notChecked, compared: Object.values(compared).reduce((sum, count) => sum + count, 0) }
}

/** Silence of the exchange is no agreement. */
function notCompared(type: TradeType): Finding {
  return finding({
    check: 'exchange',
    kind: 'not compared',
    severity: 'failure',
    eventType: type,
    summary: `no ${type} could be compared: the exchange answered no request for them, or with other rows`,
  })
}

async function sample(
  database: Database,
  scope: Scope,
  sequence: readonly [symbol: string, eventType: TradeType, epoch: number],
  random: () => number,
): Promise<Stored[]> {
  return database.transaction(
    async (connection) => {
      const bounds = timeBounds(scope)
      const days = await connection.query<Day>(DAYS, [...sequence, ...bounds])
      const stored: Stored[] = []
      for (const { day, first, last } of days.rows) {
        const between = Array.from(
          { length: RANDOM_PER_DAY },
          () => first + Math.floor(random() * (last - first)),
        )
        const ids = [...new Set([first, ...between, last])]
        stored.push(...(await connection.query<Stored>(ROWS, [...sequence, day.toISOString(), ids])).rows)
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

/** Removes trailing zeros: `1.500` and `1.5` are equal. */
function trimmed(decimal: string): string {
  return decimal.includes('.') ? decimal.replace(/\.?0+$/, '') : decimal
}
