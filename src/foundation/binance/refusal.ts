import { z } from 'zod'
import { type BackoffPolicy, delayFor } from '../runtime/backoff.ts'
import { TapelineError } from '../runtime/errors.ts'
import { OUTSIDE_TEXT_MAX, outsideText } from '../runtime/outside-text.ts'

/** An HTTP answer, of the exchange or of something on the way to it, in place of the one that was asked for. */
export interface Refusal {
  readonly status: number
  /** From the exchange's JSON body `{code, msg}`; null where there is none. */
  readonly code: number | null
  /** One line: the status, with the exchange's message and code where it gives them. */
  readonly reason: string
  /** Null where the header says nothing of use. */
  readonly retryAfterMs: number | null
}

/** The exchange refuses us on one side (REST, or WebSocket handshakes). */
export interface RefusalStatus {
  /** The HTTP status. */
  readonly status: number
  /** One line: the status, and what the exchange says. */
  readonly reason: string
  /** When the side is tried again, ISO 8601 in UTC; in the past while the attempt is under way. */
  readonly retryAt: string
}

/** How a refusal is met. */
export interface RefusalRule {
  /**
   * What waits: only the `request`; the `side` that was refused (REST or handshakes); or `both` sides. With a
   * `Retry-After` a refused request, too, stops its side for that time.
   */
  readonly stops: 'request' | 'side' | 'both'
  /** The wait without `Retry-After`: the shortest, doubled with each refusal in a row up to the longest. */
  readonly wait: BackoffPolicy
  /** The exchange says so whenever it gets this request: where it repeats that, the request is given up. */
  readonly isFinal: boolean
  /** What a person can do; empty where waiting is enough. */
  readonly fix: string
}

const SECOND_MS = 1000
const MINUTE_MS = 60_000

const between = (initialMs: number, maxMs: number): BackoffPolicy => ({ initialMs, maxMs })

const BY_STATUS: Readonly<Record<number, RefusalRule>> = {
  403: {
    stops: 'side',
    wait: between(10 * SECOND_MS, 5 * MINUTE_MS),
    isFinal: false,
    fix: 'The firewall of the exchange, or a proxy, turns this address away. Find what else asks from it.',
  },
  // A ban of the address, for 2 minutes at least.
  418: {
    stops: 'both',
    wait: between(2 * MINUTE_MS, 10 * MINUTE_MS),
    isFinal: false,
    fix: 'The exchange has banned this address for a while. Find what else asks from it; divide REST_WEIGHT_PER_MINUTE by the number of shards.',
  },
  // Counted by the minute.
  429: { stops: 'side', wait: between(MINUTE_MS, MINUTE_MS), isFinal: false, fix: '' },
  451: {
    stops: 'side',
    wait: between(5 * SECOND_MS, 10 * MINUTE_MS),
    isFinal: false,
    fix: 'If it stays: run from a place that the exchange serves, or set BINANCE_REST_URL and BINANCE_WS_URL to the hosts for yours.',
  },
}

const SERVER_ERROR: RefusalRule = {
  stops: 'request',
  wait: between(SECOND_MS, MINUTE_MS),
  isFinal: false,
  fix: '',
}

/** Any other answer. A page of a proxy looks like it, and passes; a changed interface does too, and needs a person. */
const UNKNOWN: RefusalRule = {
  stops: 'request',
  wait: between(SECOND_MS, 10 * MINUTE_MS),
  isFinal: false,
  fix: 'If it stays: check BINANCE_REST_URL and BINANCE_WS_URL, and proxies on the way.',
}

const KEY_NEEDED: RefusalRule = {
  ...UNKNOWN,
  fix: 'This exchange gives trades by id only to those with an API key: set BINANCE_API_KEY to a valid one.',
}

/** For other statuses. https://developers.binance.com/docs/binance-spot-api-docs/errors */
const BY_CODE: Readonly<Record<number, RefusalRule>> = {
  // Invalid symbol: delisted, or never listed.
  [-1121]: { ...UNKNOWN, isFinal: true, fix: '' },
  // The key's format is invalid (none was sent), and: the key, its IP or its permissions are.
  [-2014]: KEY_NEEDED,
  [-2015]: KEY_NEEDED,
}

/** The one table of how refusals are met: of WebSocket handshakes, `exchangeInfo`, the server's time and trades. */
export function ruleOf({ status, code }: Pick<Refusal, 'status' | 'code'>): RefusalRule {
  const byStatus = BY_STATUS[status] ?? (status >= 500 ? SERVER_ERROR : null)
  if (byStatus !== null) return byStatus
  return (code === null ? undefined : BY_CODE[code]) ?? UNKNOWN
}

/**
 * How long nothing is requested after a refusal: as long as `Retry-After` says, else with backoff.
 *
 * @param times equal refusals in a row, from 1
 * @param random a number in [0, 1)
 */
export function refusalWaitMs(refusal: Refusal, times: number, random: number): number {
  const { wait } = ruleOf(refusal)
  return refusal.retryAfterMs ?? delayFor(times, wait, random, wait.initialMs)
}

/** The exchange, or something on the way to it, answered with an HTTP error. Retrying after a while can help. */
export class ExchangeRefusal extends Error {
  readonly refusal: Refusal
  readonly fix: string

  /** @param what names what was refused and by which host */
  constructor(what: string, refusal: Refusal) {
    super(`${what}: ${refusal.reason}`)
    this.name = 'ExchangeRefusal'
    this.refusal = refusal
    this.fix = ruleOf(refusal).fix
  }

  /** The error for a command that does not wait. */
  forPerson(): TapelineError {
    const { retryAfterMs: waitMs } = this.refusal
    const until = waitMs === null ? '' : `; not before ${Math.ceil(waitMs / 1000)} s have passed`
    const fix = this.fix === '' ? 'Try again in a minute.' : this.fix
    return new TapelineError('EXCHANGE', `${this.message}${until}`, { fix, cause: this })
  }
}

const ERROR_BODY = z.object({ code: z.int(), msg: z.string() })

/**
 * @param body the answer's body where it was read; empty where not
 * @param nowMs the wall clock, milliseconds since the Unix epoch, for a `Retry-After` that is a date
 */
export function refusalOf(status: number, retryAfter: string | null, body: string, nowMs: number): Refusal {
  const wait = retryAfterMs(retryAfter, nowMs)
  const parsed = ERROR_BODY.safeParse(parseJson(body))
  if (!parsed.success) return { status, code: null, reason: `HTTP ${status}`, retryAfterMs: wait }
  const { code, msg } = parsed.data
  // The ledger takes no longer reason, and the code tells most.
  const end = ` (${code})`
  const reason = `${outsideText(`HTTP ${status}: ${msg}`, OUTSIDE_TEXT_MAX - end.length)}${end}`
  return { status, code, reason, retryAfterMs: wait }
}

/** Reads a REST answer that is not `ok`. */
export async function refusalOfResponse(response: Response, nowMs: number): Promise<Refusal> {
  const type = response.headers.get('content-type')
  const isJson = type === null || /json/i.test(type)
  // A page of a proxy says nothing that is used.
  if (!isJson) await response.body?.cancel()
  const body = isJson ? await response.text() : ''
  return refusalOf(response.status, response.headers.get('retry-after'), body, nowMs)
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** The longest ban of the exchange is three days; a header that says more is not believed. */
const LONGEST_MS = 3 * 24 * 3_600_000

/**
 * How long a `Retry-After` header asks to wait, in milliseconds; null where it says nothing of use: absent, empty,
 * garbage, 0, or a time that has passed. Seconds or an HTTP date (RFC 9110, 10.2.3).
 *
 * @param nowMs the wall clock, milliseconds since the Unix epoch
 */
function retryAfterMs(header: string | null, nowMs: number): number | null {
  const text = header?.trim() ?? ''
  const waitMs = /^\d+$/.test(text) ? Number(text) * 1000 : httpDateMs(text) - nowMs
  return waitMs > 0 ? Math.min(waitMs, LONGEST_MS) : null
}

/** NaN for what is none: `Date.parse` alone takes much for a date that is not. */
function httpDateMs(text: string): number {
  return /^[A-Z][a-z]{2,8},? .*\d{2}:\d{2}:\d{2}/.test(text) ? Date.parse(text) : Number.NaN
}
