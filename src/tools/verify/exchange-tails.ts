import { REST_LIMIT, type RestTrade } from '../../foundation/binance/trade-rest.ts'
import { isTradeType, restOf, type TradeType } from '../../foundation/market/event.ts'
import { isoOfUs } from '../../foundation/market/time-unit.ts'
import { sleep } from '../../foundation/runtime/backoff.ts'
import { readOffsets } from '../../foundation/store/consumer-offsets.ts'
import type { Database } from '../../foundation/store/database.ts'
import { readRecordings } from '../../foundation/store/meta.ts'
import { announcedPeriods, type Period } from './announced.ts'
import { type DeadLetters, readDeadLetters } from './dead-letters.ts'
import { type Ask, whyNot } from './exchange-requests.ts'
import { atId, finding, type Remark, unchecked } from './findings.ts'
import type { Example, Report, Watermark } from './report-types.ts'
import { readFloors } from './retention.ts'
import { rangeValues, type Scope } from './scope.ts'
import { CHECK_LIMIT_MS } from './verify.ts'
import { hasReached, watermarkOf } from './watermark.ts'

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
const UNNAMED = `SELECT id::float8 AS id FROM (SELECT unnest($3::bigint[]) AS id, unnest($4::timestamptz[]) AS time) AS asked
  WHERE NOT EXISTS (SELECT 1 FROM (SELECT unnest($6::bigint[]) AS from_id, unnest($7::bigint[]) AS to_id) AS letters
      WHERE id BETWEEN letters.from_id AND letters.to_id)
    AND NOT EXISTS (SELECT 1 FROM trades WHERE symbol = $1 AND event_type = $2 AND trade_time = time AND trade_id = id)
    AND NOT EXISTS (SELECT 1 FROM gaps WHERE symbol = $1 AND event_type = $2 AND epoch >= $5 AND status <> 'filled'
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

/**
 * Asks the exchange for trades after the last stored row of each recorded symbol and type: those
 * leave no hole between stored ids. @returns also the types for which it answered nothing
 */
export async function checkTails(
  database: Database,
  scope: Scope,
  report: Pick<Report, 'takenAt' | 'watermark'>,
  ask: Ask,
  signal: AbortSignal,
): Promise<{ remarks: Remark[]; unanswered: ReadonlySet<TradeType> }> {
  const { tails, ended, letters } = await readTails(database, scope, report)
  let arrival: Promise<boolean> | null = null
  const remarks: Remark[] = []
  const answered = new Set<TradeType>()
  const unanswered: Example[] = []
  const pending: Example[] = []
  for (const tail of tails) {
    const { symbol, type } = tail
    const named = `${symbol} ${type}`
    const [last = null] = (await database.query<Last>(LAST, [symbol, type])).rows
    const unnamed = (rows: readonly RestTrade[]) => firstUnnamed(database, letters, tail, last, rows)
    const found = await firstMissing(tail, last, ask, unnamed)
    if (typeof found === 'string') {
      unanswered.push({ from: null, to: null, detail: `${named}: ${found}` })
      continue
    }
    answered.add(type)
    if (found === null) continue
    // A trade may still be in Kafka, or its row of the ledger.
    arrival ??= hasArrived(database, report.watermark, signal)
    const isStored = await arrival
    if ((await unnamed([found])) === null) continue
    if (isStored) remarks.push(notStored(tail, last, found))
    else pending.push(atId(found.id, named))
  }
  remarks.push(
    ...counted(ended, 'that are no longer recorded'),
    ...counted(unanswered, 'of which the exchange did not answer with the latest'),
    ...counted(pending, 'of which rows may still be in Kafka'),
  )
  return { remarks, unanswered: new Set(tails.map(({ type }) => type)).difference(answered) }
}

function counted(examples: readonly Example[], which: string): Remark[] {
  if (examples.length === 0) return []
  const what = `symbols and types ${which}: ids after their last row`
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

/**
 * Asks for the newest trade, for those after the last stored one, and for older ones where nothing
 * is stored or the ledger names those.
 * @returns a trade that should be stored, without an explanation; null, or why it is not known
 */
async function firstMissing(
  { symbol, type, period }: Tail,
  last: Last | null,
  ask: Ask,
  unnamed: (rows: readonly RestTrade[]) => Promise<RestTrade | null>,
): Promise<RestTrade | string | null> {
  const bottom = last === null ? 0 : last.id + 1
  const isOld = ({ timeUs }: RestTrade) => timeUs / 1000 <= period.toMs
  const missingIn = (rows: readonly RestTrade[]) =>
    unnamed(
      rows.filter((row) => row.id >= bottom && isOld(row) && row.timeUs / 1000 >= period.fromMs + MARGIN_MS),
    )
  if (!restOf(type).hasLatest) return firstMissingAfter({ type, symbol }, bottom, ask, missingIn)
  const latest = await ask({ type, symbol, fromId: null, limit: 1 })
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
    const answer = await ask({ type, symbol, fromId, limit: REST_LIMIT })
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
  ask: Ask,
  missingIn: (rows: readonly RestTrade[]) => Promise<RestTrade | null>,
): Promise<RestTrade | string | null> {
  for (let fromId = bottom; ; ) {
    const answer = await ask({ ...stream, fromId, limit: REST_LIMIT })
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
  const [ids, times] = [trades.map(({ id }) => id), trades.map(({ timeUs }) => isoOfUs(timeUs))]
  const explained = rangeValues(letters.idsOf({ symbol, eventType: type, epoch }))
  const values = [symbol, type, ids, times, epoch, ...explained]
  const { rows } = await database.query<{ id: number }>(UNNAMED, values)
  return trades.find(({ id }) => id === rows[0]?.id) ?? null
}

/** Waits until what Kafka had at the audit is stored; true where Kafka was not reached. */
async function hasArrived(database: Database, wanted: Watermark, signal: AbortSignal): Promise<boolean> {
  const deadlineMs = performance.now() + ARRIVAL_LIMIT_MS
  for (;;) {
    const now = watermarkOf(await readOffsets(database), { notReached: '' })
    if (hasReached(now, wanted)) return true
    if (performance.now() >= deadlineMs) return false
    await sleep(ARRIVAL_STEP_MS, signal)
  }
}

function notStored({ symbol, type }: Tail, last: Last | null, { id, timeUs }: RestTrade): Remark {
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
