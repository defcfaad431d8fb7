import { z } from 'zod'
import { type BackoffPolicy, delayFor } from '../runtime/backoff.ts'
import { TapelineError } from '../runtime/errors.ts'
import { OUTSIDE_TEXT_MAX, outsideText, parseJson } from '../runtime/outside-text.ts'

/** An HTTP error from the exchange, or from something on the way to it, in place of the answer. */
export interface Refusal {
  readonly status: number
  /** From the exchange's JSON body `{code, msg}`; null without one. */
  readonly code: number | null
  /** One line: the status, with the exchange's message and code if given. */
  readonly reason: string
  /** Null without a usable header. */
  readonly retryAfterMs: number | null
}

/** A current refusal of one side (REST, or WebSocket handshakes). */
export interface RefusalStatus extends Pick<Refusal, 'status' | 'reason'> {
  /** Time of the next attempt, ISO 8601 in UTC; in the past while the attempt runs. */
  readonly retryAt: string
}

export interface RefusalRule {
  /** What pauses. With `Retry-After`, a refused `request` also stops its side for that time. */
  readonly stops: 'request' | 'side' | 'both'
  /** The wait without `Retry-After`, doubled with each consecutive refusal up to the maximum. */
  readonly wait: BackoffPolicy
  /** If the exchange repeats the answer to this request, the request is abandoned. */
  readonly isFinal?: true
  /** What an operator can do; empty if waiting is enough. */
  readonly fix: string
}

const SECOND_MS = 1000
const MINUTE_MS = 60_000

const between = (initialMs: number, maxMs: number): BackoffPolicy => ({ initialMs, maxMs })

const BY_STATUS: Readonly<Record<number, RefusalRule>> = {
  403: {
    stops: 'side',
    wait: between(10 * SECOND_MS, 5 * MINUTE_MS),
    fix: 'The firewall of the exchange, or a proxy, blocks this address. Find what else sends requests from it.',
  },
  // A ban of the address for at least 2 minutes.
  418: {
    stops: 'both',
    wait: between(2 * MINUTE_MS, 10 * MINUTE_MS),
    fix: 'The exchange has banned this address temporarily. Find what else sends requests from it; divide REST_WEIGHT_PER_MINUTE by the number of shards.',
  },
  // The limit is per minute.
  429: { stops: 'side', wait: between(MINUTE_MS, MINUTE_MS), fix: '' },
  451: {
    stops: 'side',
    wait: between(5 * SECOND_MS, 10 * MINUTE_MS),
    fix: 'If it persists: run from a region that the exchange serves, or set BINANCE_REST_URL and BINANCE_WS_URL to the hosts for your region.',
  },
}

const SERVER_ERROR: RefusalRule = { stops: 'request', wait: between(SECOND_MS, MINUTE_MS), fix: '' }

/** An error page of a proxy, which will pass, or a changed interface, which needs an operator. */
const UNKNOWN: RefusalRule = {
  stops: 'request',
  wait: between(SECOND_MS, 10 * MINUTE_MS),
  fix: 'If it persists: check BINANCE_REST_URL and BINANCE_WS_URL, and any proxy.',
}

const KEY_NEEDED: RefusalRule = {
  ...UNKNOWN,
  fix: 'This exchange requires an API key for trades by id: set BINANCE_API_KEY to a valid one.',
}

/** By error code: https://developers.binance.com/docs/binance-spot-api-docs/errors */
const BY_CODE: Readonly<Record<number, RefusalRule>> = {
  // Invalid symbol: delisted, or never listed.
  [-1121]: { ...UNKNOWN, isFinal: true, fix: '' },
  // The key's format is invalid (none was sent); or the key, its IP or its permissions are invalid.
  [-2014]: KEY_NEEDED,
  [-2015]: KEY_NEEDED,
}

/** Returns the reaction to a refusal, of handshakes and of all REST requests. */
export function ruleOf({ status, code }: Pick<Refusal, 'status' | 'code'>): RefusalRule {
  const byStatus = BY_STATUS[status] ?? (status >= 500 ? SERVER_ERROR : null)
  if (byStatus !== null) return byStatus
  return (code === null ? undefined : BY_CODE[code]) ?? UNKNOWN
}

/** Returns how long to pause: `Retry-After`, or with backoff. @param times equal refusals in a row */
export function refusalWaitMs(refusal: Refusal, times: number, random: number): number {
  const { wait } = ruleOf(refusal)
  return refusal.retryAfterMs ?? delayFor(times, wait, random, wait.initialMs)
}

/** The error for a {@link Refusal}. Retrying later can help. */
export class ExchangeRefusal extends Error {
  readonly refusal: Refusal
  readonly fix: string

  /** @param what names the refused request and the host */
  constructor(what: string, refusal: Refusal) {
    super(`${what}: ${refusal.reason}`)
    this.name = 'ExchangeRefusal'
    this.refusal = refusal
    this.fix = ruleOf(refusal).fix
  }

  /** Returns the error for a command that does not wait. */
  forPerson(): TapelineError {
    const { retryAfterMs: waitMs } = this.refusal
    const until = waitMs === null ? '' : `; not before ${Math.ceil(waitMs / 1000)} s have passed`
    const fix = this.fix === '' ? 'Try again in a minute.' : this.fix
    return new TapelineError('EXCHANGE', `${this.message}${until}`, { fix, cause: this })
  }
}

const ERROR_BODY = z.object({ code: z.int(), msg: z.string() })

/** @param body empty if it was not read @param nowMs of the wall clock, for a `Retry-After` with a date */
export function refusalOf(status: number, retryAfter: string | null, body: string, nowMs: number): Refusal {
  const wait = retryAfterMs(retryAfter, nowMs)
  const parsed = ERROR_BODY.safeParse(parseJson(body))
  if (!parsed.success) return { status, code: null, reason: `HTTP ${status}`, retryAfterMs: wait }
  const { code, msg } = parsed.data
  // The ledger limits the length of a reason, and the code says most.
  const end = ` (${code})`
  const reason = `${outsideText(`HTTP ${status}: ${msg}`, OUTSIDE_TEXT_MAX - end.length)}${end}`
  return { status, code, reason, retryAfterMs: wait }
}

/** Reads a REST answer that is not `ok`. */
export async function refusalOfResponse(response: Response, nowMs: number): Promise<Refusal> {
  const type = response.headers.get('content-type')
  const isJson = type === null || /json/i.test(type)
  // The error page of a proxy is not used.
  if (!isJson) await response.body?.cancel()
  const body = isJson ? await response.text() : ''
  return refusalOf(response.status, response.headers.get('retry-after'), body, nowMs)
}

/** The exchange's longest ban is three days; a longer value in the header is ignored. */
const LONGEST_MS = 3 * 24 * 3_600_000

/** Parses seconds or an HTTP date (RFC 9110, 10.2.3) into ms from now; null for other text, 0, the past. */
function retryAfterMs(header: string | null, nowMs: number): number | null {
  const text = header?.trim() ?? ''
  const waitMs = /^\d+$/.test(text) ? Number(text) * 1000 : httpDateMs(text) - nowMs
  return waitMs > 0 ? Math.min(waitMs, LONGEST_MS) : null
}

/** NaN if the text is no HTTP date: `Date.parse` alone accepts many other texts. */
function httpDateMs(text: string): number {
  return /^[A-Z][a-z]{2,8},? .*\d{2}:\d{2}:\d{2}/.test(text) ? Date.parse(text) : Number.NaN
}
