import { restOf, TRADE_TYPES, type TradeType } from '../../../foundation/market/event.ts'
import { MICROSECONDS_IN, type TimeUnit } from '../../../foundation/market/time-unit.ts'
import type { BookHistory } from '../market/book-history.ts'
import { rowOf } from '../market/market-event.ts'
import type { HistoryQuery, TradeHistory } from '../market/trade-history.ts'
import { exchangeInfo } from './exchange-info.ts'
import { BadRequest, Parameters } from './rest-parameters.ts'
import { DEFAULT_REST_LIMITS, type RestLimits, WeightLimit, type WeightVerdict } from './rest-weights.ts'
import { askedTimeUnit, BAD_TIME_UNIT, microsecondsOf, wholeMs } from './time-units.ts'

export interface RestRequest {
  readonly method: string
  readonly url: string
  readonly ip: string
  readonly timeUnit: string | undefined
}

export interface RestAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

interface Endpoint {
  readonly weight: number | ((query: URLSearchParams) => number)
  /** @param serverTime now, in the unit of the answer */
  readonly answer: (parameters: Parameters, unit: TimeUnit, serverTime: number) => object
}

/** Levels per side of a snapshot, and its weight by their number. */
const LEVELS = { initial: 100, most: 5_000 }
const SNAPSHOT_WEIGHTS: ReadonlyArray<readonly [levels: number, weight: number]> = [
  [100, 5],
  [500, 25],
  [1_000, 50],
]
const LARGEST_SNAPSHOT_WEIGHT = 250

/** The latest books that REST shows. Throws a RangeError if a replay does not know the book. */
export type ShownBooks = (symbol: string, levels: number) => ReturnType<BookHistory['book']>

const JSON_TYPE = { 'content-type': 'application/json;charset=UTF-8' }

/** The exchange's REST API for market data, as a function of request and time. */
export class RestApi {
  readonly #history: TradeHistory
  readonly #ownTimeUnit: TimeUnit | null
  readonly #limits: RestLimits
  readonly #weights: WeightLimit
  readonly #endpoints: ReadonlyMap<string, Endpoint>

  /** @param ownTimeUnit fixed unit of its rows; null: milliseconds, or as requested */
  constructor(
    history: TradeHistory,
    limits: Partial<RestLimits> | undefined,
    ownTimeUnit: TimeUnit | null,
    books: ShownBooks | null,
  ) {
    this.#history = history
    this.#ownTimeUnit = ownTimeUnit
    this.#limits = { ...DEFAULT_REST_LIMITS, ...limits }
    this.#weights = new WeightLimit(this.#limits)
    const ofTrades = (type: TradeType): Endpoint => ({
      weight: restOf(type).weight,
      answer: (parameters, unit) => this.#rows(type, parameters, unit, query(parameters, type)),
    })
    const endpoints: Record<string, Endpoint> = {
      ping: { weight: 1, answer: () => ({}) },
      time: { weight: 1, answer: (_, __, serverTime) => ({ serverTime }) },
      exchangeInfo: { weight: 20, answer: (parameters, _, time) => this.#exchangeInfo(parameters, time) },
      // No API key is needed, as on the exchange.
      trades: {
        weight: restOf('trade').weight,
        answer: (parameters, unit) => this.#rows('trade', parameters, unit, { limit: parameters.limit() }),
      },
      ...(books === null ? {} : { depth: this.#depth(books) }),
      ...Object.fromEntries(TRADE_TYPES.map((type) => [restOf(type).path, ofTrades(type)])),
    }
    this.#endpoints = new Map(Object.entries(endpoints).map(([path, one]) => [`/api/v3/${path}`, one]))
  }

  answer(request: RestRequest, nowMs: number): RestAnswer {
    const url = URL.parse(request.url, 'http://exchange')
    const endpoint = this.#endpoints.get(url?.pathname ?? '')
    if (url === null || endpoint === undefined) {
      const msg = `Path ${url?.pathname ?? request.url}, Method ${request.method} is invalid`
      return { status: 404, headers: JSON_TYPE, body: JSON.stringify({ code: -5000, msg }) }
    }
    if (request.method !== 'GET') return { status: 405, headers: { allow: 'GET' }, body: '' }
    const weight = typeof endpoint.weight === 'number' ? endpoint.weight : endpoint.weight(url.searchParams)
    const verdict = this.#weights.take(request.ip, weight, nowMs)
    const headers = {
      ...JSON_TYPE,
      'x-mbx-used-weight': String(verdict.used),
      'x-mbx-used-weight-1m': String(verdict.used),
    }
    if (!verdict.allowed) return this.#refusal(verdict, headers, nowMs)
    const parameters = new Parameters(url.searchParams)
    const asked = askedTimeUnit(request.timeUnit)
    if (asked === null) return { status: 400, headers, body: JSON.stringify(BAD_TIME_UNIT) }
    const unit = this.#ownTimeUnit ?? asked
    try {
      const serverTime = nowMs * (1000 / MICROSECONDS_IN[unit])
      return { status: 200, headers, body: JSON.stringify(endpoint.answer(parameters, unit, serverTime)) }
    } catch (error) {
      if (!(error instanceof BadRequest)) throw error
      return { status: 400, headers, body: JSON.stringify({ code: error.code, msg: error.message }) }
    }
  }

  #depth(books: ShownBooks): Endpoint {
    return {
      weight: (query) => {
        const levels = Number(query.get('limit') ?? LEVELS.initial)
        return SNAPSHOT_WEIGHTS.find(([most]) => levels <= most)?.[1] ?? LARGEST_SNAPSHOT_WEIGHT
      },
      answer: (parameters) => {
        const [symbol, levels] = [parameters.symbol(), parameters.limit(LEVELS)]
        parameters.done()
        this.#checkListed(symbol)
        try {
          return books(symbol, levels)
        } catch (error) {
          if (error instanceof RangeError) throw new BadRequest(-1000, `${error.message}.`)
          throw error
        }
      },
    }
  }

  #refusal(
    verdict: WeightVerdict & { allowed: false },
    headers: Record<string, string>,
    nowMs: number,
  ): RestAnswer {
    const msg =
      verdict.status === 429
        ? `Too much request weight used; current limit is ${this.#limits.weightPerMinute} request weight per 1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API.`
        : `Way too much request weight used; IP banned until ${verdict.retryAtMs}. Please use WebSocket Streams for live updates to avoid bans.`
    const retryAfterSeconds = Math.max(1, Math.ceil((verdict.retryAtMs - nowMs) / 1_000))
    return {
      status: verdict.status,
      headers: { ...headers, 'retry-after': String(retryAfterSeconds) },
      body: JSON.stringify({ code: -1003, msg }),
    }
  }

  #exchangeInfo(parameters: Parameters, serverTime: number): object {
    const names = parameters.symbolList()
    const permissions = parameters.text('permissions')
    const status = parameters.text('symbolStatus')
    const showPermissionSets = parameters.text('showPermissionSets') !== 'false'
    parameters.done()
    if (names !== undefined && (permissions !== undefined || status !== undefined)) {
      throw new BadRequest(-1128, 'Combination of optional parameters invalid.')
    }
    for (const name of names ?? []) this.#checkListed(name)
    const listed = (names ?? this.#history.symbols)
      .map((symbol) => ({ symbol, status: this.#history.status(symbol) ?? '' }))
      .filter((one) => one.status !== '' && one.status === (status ?? one.status))
    return exchangeInfo(listed, serverTime, this.#limits.weightPerMinute, showPermissionSets)
  }

  #rows(type: TradeType, parameters: Parameters, unit: TimeUnit, query: HistoryQuery): object {
    const symbol = parameters.symbol()
    parameters.done()
    const { fromId, startTimeMs, endTimeMs } = query
    if (fromId !== undefined && (startTimeMs !== undefined || endTimeMs !== undefined)) {
      throw new BadRequest(-1128, 'Combination of optional parameters invalid.')
    }
    if (startTimeMs !== undefined && endTimeMs !== undefined && startTimeMs > endTimeMs) {
      throw new BadRequest(-1127, 'Start time is greater than end time.')
    }
    this.#checkListed(symbol)
    return this.#history
      .events(type, symbol, query)
      .map((event) => rowOf(type, { ...event, tradeTime: this.#shown(event.tradeTime, unit) }))
  }

  #shown(time: number, unit: TimeUnit): number {
    return unit === 'microsecond' && this.#ownTimeUnit === null ? microsecondsOf(time) : time
  }

  #checkListed(symbol: string): void {
    if (this.#history.status(symbol) === null) throw new BadRequest(-1121, 'Invalid symbol.')
  }
}

function query(parameters: Parameters, type: TradeType): HistoryQuery {
  const ofIds = { limit: parameters.limit(), fromId: parameters.integer('fromId', !restOf(type).hasLatest) }
  if (type !== 'aggTrade') return ofIds
  // The exchange accepts both units, independent of the unit of the answer.
  const time = (name: string) => {
    const given = parameters.integer(name)
    return given === undefined ? undefined : wholeMs(given)
  }
  return { ...ofIds, startTimeMs: time('startTime'), endTimeMs: time('endTime') }
}
