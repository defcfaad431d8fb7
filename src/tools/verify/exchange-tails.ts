import { REST_LIMIT, type RestTrade } from '../../foundation/binance/trade-rest.ts'
import { byTradeType, isTradeType, restOf, type TradeType } from '../../foundation/market/event.ts'
import { sleep } from '../../foundation/runtime/backoff.ts'
import { readOffsets } from '../../foundation/store/consumer-offsets.ts'
import type { Database } from '../../foundation/store/database.ts'
import { readRecordings } from '../../foundation/store/meta.ts'
import { announcedPeriods, type Period } from './announced.ts'
import { type DeadLetters, readDeadLetters } from './dead-letters.ts'
import { type ExchangeRequests, whyNot } from './exchange-requests.ts'
import { atId, finding, unchecked } from './findings.ts'
import { hasReached } from './quiet-wait.ts'
import type { Example, Finding, NotChecked, Report } from './report-types.ts'
import { readFloors } from './retention.ts'
import type { Scope } from './scope.ts'
import { CHECK_LIMIT_MS } from './verify.ts'
import { watermarkOf } from './watermark.ts'

/** From a trade to its row: only older ones must be stored. And a start takes as long to connect. */
const MARGIN_MS = 60_000

/** Where Kafka cannot be asked, and rows may wait in it. */
const MARGIN_WITHOUT_KAFKA_MS = 10 * 60_000

/** How long, and how often, to look whether what Kafka had is stored. */
const ARRIVAL_LIMIT_MS = 30_000
const ARRIVAL_STEP_MS = 1000

/** All are counted, and so many are named. */
const NAMED_MAX = 5

/** The last row and its epoch, where trade times are in the order of ids. */
const LAST = `SELECT epoch, max(trade_id)::float8 AS id FROM (
    SELECT epoch, trade_id FROM trades WHERE symbol = $1 AND event_type = $2 ORDER BY trade_time DESC LIMIT 1000) AS latest
  GROUP BY epoch ORDER BY epoch DESC LIMIT 1`

/** The first of these ids that is neither stored nor named by the ledger or a dead letter. */
const UNNAMED = `SELECT id::float8 AS id FROM unnest($3::bigint[], $4::float8[]) AS asked (id, us),
    LATERAL (SELECT timestamptz 'epoch' + us * interval '1 microsecond' AS time) AS timed
  WHERE NOT id <@ $6::int8multirange
    AND NOT EXISTS (SELECT FROM trades WHERE symbol = $1 AND event_type = $2 AND trade_time = time AND trade_id = id)
    AND NOT EXISTS (SELECT FROM gaps WHERE symbol = $1 AND event_type = $2 AND epoch >= $5 AND status <> 'filled'
      AND (id BETWEEN from_id AND to_id OR from_id IS NULL AND time BETWEEN from_time AND to_time))
  ORDER BY id LIMIT 1`

/** The last id that is stored, and its epoch. */
interface Last {
  readonly epoch: number
  readonly id: number
}

/** A symbol and type that is recorded, since when, and by what time all its trades must be stored. */
interface Tail {
  readonly symbol: string
  readonly type: TradeType
  readonly period: Period
}

interface TailFindings {
  readonly findings: Finding[]
  readonly notChecked: NotChecked[]
  /** Counts the symbols that the exchange was queried for. */
  readonly asked: Readonly<Record<TradeType, number>>
  /** Counts those that it answered for. */
  readonly answered: Readonly<Record<TradeType, number>>
}

/**
 * Looks at the exchange for trades after the last stored row of every symbol and type that is recorded: those that never
 * delivered, or ended as a whole, leave no hole between stored ids.
 */
export async function checkTails(
  database: Database,
  scope: Scope,
  report: Pick<Report, 'takenAt' | 'watermark'>,
  requests: ExchangeRequests,
): Promise<TailFindings> {
  const { tails, ended, letters } = await readTails(database, scope, report)
  const arrival = new Arrival(database, report, requests.signal)
  const findings: Finding[] = []
  const asked = byTradeType(() => 0)
  const answered = byTradeType(() => 0)
  const unanswered: Example[] = []
  const pending: Example[] = []
  for (const tail of tails) {
    const { symbol, type } = tail
    const named = `${symbol} ${type}`
    const last = await readLast(database, tail)
    const unnamed = (rows: readonly RestTrade[]) => firstUnnamed(database, letters, tail, last, rows)
    asked[type]++
    const found = await firstMissing(tail, last, requests, unnamed)
    if (typeof found === 'string') {
      unanswered.push({ from: null, to: null, detail: `${named}: ${found}` })
      continue
    }
    answered[type]++
    if (found === null) continue
    const hasArrived = await arrival.wait()
    if ((await unnamed([found])) === null) continue
    if (hasArrived) findings.push(notStored(tail, last, found))
    else pending.push(atId(found.id, named))
  }
  const notChecked = [
    ...counted(ended, 'symbols and types that are no longer recorded: ids after their last row'),
    ...counted(
      unanswered,
      'symbols and types of which the exchange did not answer with the latest: ids after their last row',
    ),
    ...counted(pending, 'symbols and types of which rows may still be in Kafka: ids after their last row'),
  ]
  return { findings, notChecked, asked, answered }
}

function counted(examples: readonly Example[], what: string): NotChecked[] {
  if (examples.length === 0) return []
  return [unchecked(what, { count: examples.length, examples: examples.slice(0, NAMED_MAX) })]
}

/** @returns `ended` what was recorded earlier: when its recording ended is not known */
async function readTails(
  database: Database,
  scope: Scope,
  { takenAt, watermark }: Pick<Report, 'takenAt' | 'watermark'>,
): Promise<{ tails: Tail[]; ended: Example[]; letters: DeadLetters }> {
  const read = await database.transaction(
    async (connection) => ({
      recordings: await readRecordings(connection),
      floors: await readFloors({ connection, scope, limit: 1 }),
      letters: await readDeadLetters({ connection, scope, limit: 1 }),
    }),
    { isSnapshot: true, limitMs: CHECK_LIMIT_MS },
  )
  const marginMs = watermark.pending === null ? MARGIN_WITHOUT_KAFKA_MS : MARGIN_MS
  const range = {
    fromMs: Math.max(scope.fromMs ?? 0, read.floors.trades ?? 0),
    toMs: Math.min(scope.toMs ?? Number.POSITIVE_INFINITY, Date.parse(takenAt) - marginMs),
  }
  const tails: Tail[] = []
  const ended: Example[] = []
  for (const [symbol, types] of announcedPeriods(read.recordings, range)) {
    if (scope.symbols !== null && !scope.symbols.includes(symbol)) continue
    for (const [type, periods] of types) {
      const period = periods.at(-1)
      if (!isTradeType(type) || period === undefined) continue
      if (period.toMs === range.toMs) tails.push({ symbol, type, period })
      else ended.push({ from: null, to: null, detail: `${symbol} ${type}` })
    }
  }
  return { tails, ended, letters: read.letters }
}

async function readLast(database: Database, { symbol, type }: Tail): Promise<Last | null> {
  const { rows } = await database.query<Last>(LAST, [symbol, type])
  return rows[0] ?? null
}

/**
 * Asks for the newest trade, for those after the last stored one, and, where nothing is stored or the ledger names those, for
 * some before the newest.
 *
 * @param unnamed the first of some trades that nothing explains
 * @returns a trade that ought to be stored and that nothing explains; null for none, a text where the exchange does not tell
 */
async function firstMissing(
  { symbol, type, period }: Tail,
  last: Last | null,
  requests: ExchangeRequests,
  unnamed: (rows: readonly RestTrade[]) => Promise<RestTrade | null>,
): Promise<RestTrade | string | null> {
  const bottom = last === null ? 0 : last.id + 1
  const isOld = ({ timeUs }: RestTrade) => timeUs / 1000 <= period.toMs
  const missingIn = (rows: readonly RestTrade[]) =>
    unnamed(
      rows.filter((row) => row.id >= bottom && isOld(row) && row.timeUs / 1000 >= period.fromMs + MARGIN_MS),
    )
  if (!restOf(type).hasLatest) return firstMissingAfter({ type, symbol }, bottom, requests, missingIn)
  const latest = await requests.ask({ type, symbol, fromId: null, limit: 1 })
  if (latest.kind !== 'rows') return whyNot(latest)
  const newest = latest.rows.at(-1)
  if (newest === undefined || newest.id < bottom) return null
  const missing = await missingIn([newest])
  if (missing !== null) return missing
  // Ids up to `early` are stored, from before the period, or explained; ids from `young` on need not be stored yet.
  let early = bottom - 1
  let young = newest.id
  let back = REST_LIMIT - 1
  let fromId = last === null ? Math.max(young - back, bottom) : bottom
  while (young - early > 1) {
    const answer = await requests.ask({ type, symbol, fromId, limit: REST_LIMIT })
    if (answer.kind !== 'rows') return whyNot(answer)
    const found = await missingIn(answer.rows)
    if (found !== null) return found
    const [first] = answer.rows
    if (first !== undefined && isOld(first)) early = Math.max(fromId, answer.rows.at(-1)?.id ?? fromId)
    else young = fromId
    back *= 4
    // The recent past of a symbol is a small part of its ids: farther and farther back, then between.
    fromId = early < bottom ? Math.max(newest.id - back, bottom) : Math.floor((early + young) / 2)
  }
  return null
}

/** Asks for everything from an id on: such types are rare. */
async function firstMissingAfter(
  stream: Pick<Tail, 'type' | 'symbol'>,
  bottom: number,
  requests: ExchangeRequests,
  missingIn: (rows: readonly RestTrade[]) => Promise<RestTrade | null>,
): Promise<RestTrade | string | null> {
  for (let fromId = bottom; ; ) {
    const answer = await requests.ask({ ...stream, fromId, limit: REST_LIMIT })
    if (answer.kind !== 'rows') return whyNot(answer)
    const found = await missingIn(answer.rows)
    const next = (answer.rows.at(-1)?.id ?? 0) + 1
    if (found !== null || answer.rows.length < REST_LIMIT || next <= fromId) return found
    fromId = next
  }
}

async function firstUnnamed(
  database: Database,
  letters: DeadLetters,
  { symbol, type }: Tail,
  last: Last | null,
  trades: readonly RestTrade[],
): Promise<RestTrade | null> {
  if (trades.length === 0) return null
  const epoch = last?.epoch ?? 0
  const { rows } = await database.query<{ id: number }>(UNNAMED, [
    symbol,
    type,
    trades.map(({ id }) => id),
    trades.map(({ timeUs }) => timeUs),
    epoch,
    letters.idsOf(symbol, type, epoch),
  ])
  return trades.find(({ id }) => id === rows[0]?.id) ?? null
}

/** Waits once for what Kafka had when the audit was taken: a trade may be in it, or its row of the ledger. */
class Arrival {
  readonly #database: Database
  readonly #report: Pick<Report, 'watermark'>
  readonly #signal: AbortSignal
  #waiting: Promise<boolean> | null = null

  constructor(database: Database, report: Pick<Report, 'watermark'>, signal: AbortSignal) {
    this.#database = database
    this.#report = report
    this.#signal = signal
  }

  /** @returns whether it is stored; true where Kafka was not reached */
  wait(): Promise<boolean> {
    this.#waiting ??= this.#wait()
    return this.#waiting
  }

  async #wait(): Promise<boolean> {
    const deadlineMs = performance.now() + ARRIVAL_LIMIT_MS
    for (;;) {
      const now = watermarkOf(await readOffsets(this.#database), { notReached: '' })
      if (hasReached(now, this.#report.watermark)) return true
      if (performance.now() >= deadlineMs) return false
      await sleep(ARRIVAL_STEP_MS, this.#signal)
    }
  }
}

function notStored({ symbol, type }: Tail, last: Last | null, { id, timeUs }: RestTrade): Finding {
  const stored = last === null ? 'nothing is stored' : `the last stored id is ${last.id}`
  return finding({
    check: 'exchange',
    kind: 'not stored',
    severity: 'failure',
    symbol,
    eventType: type,
    epoch: last?.epoch ?? null,
    summary: 'the exchange has later ones than the last that is stored, and the ledger does not name them',
    examples: [atId(id, `of ${new Date(Math.floor(timeUs / 1000)).toISOString()}; ${stored}`)],
  })
}
