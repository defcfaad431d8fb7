import type { RestAnswer } from '../server/rest-api.ts'
import type { SpecOf } from './fault-kinds.ts'
import type { FaultRegistry } from './fault-registry.ts'

/** A delay, then the faults' answer, a reset, or the exchange's answer. */
interface RequestFate {
  readonly delayMs: number
  readonly answer: RestAnswer | 'reset' | 'as usual'
}

/** Applies the active faults, oldest first. An error takes precedence over a reset. */
export function requestFate(url: string, book: FaultRegistry): RequestFate {
  const parsed = URL.parse(url, 'http://exchange')
  const path = parsed?.pathname.replace('/api/v3/', '')
  const symbol = parsed?.searchParams.get('symbol')
  const concerns = (spec: { path?: string | undefined; symbol?: string | undefined }) =>
    (spec.path ?? path) === path && (spec.symbol ?? symbol) === symbol
  const matching = <Kind extends 'restSlow' | 'restError' | 'restReset'>(kind: Kind) =>
    book.active(kind).filter(({ spec }) => concerns(spec))
  let delayMs = 0
  for (const fault of matching('restSlow')) {
    if (book.strikes(fault)) delayMs += fault.spec.delayMs
  }
  const error = matching('restError').find((fault) => book.strikes(fault))
  if (error !== undefined) return { delayMs, answer: errorAnswer(error.spec) }
  const isReset = matching('restReset').some((fault) => book.strikes(fault))
  return { delayMs, answer: isReset ? 'reset' : 'as usual' }
}

/** Bodies as documented ("General API Information", "Error codes"), and that of the firewall. */
function errorAnswer({ status, retryAfterSeconds }: SpecOf<'restError'>): RestAnswer {
  const retry = retryAfterSeconds ?? (status === 429 ? 5 : status === 418 ? 120 : undefined)
  const retryHeader: Record<string, string> = retry === undefined ? {} : { 'retry-after': String(retry) }
  if (status === 403) {
    const body = '<html><head><title>403 Forbidden</title></head><body>403 Forbidden</body></html>'
    return { status, headers: { 'content-type': 'text/html', ...retryHeader }, body }
  }
  const [code, msg] = ERRORS[status] ?? [-1000, 'An unknown error occurred while processing the request.']
  return {
    status,
    headers: { 'content-type': 'application/json;charset=UTF-8', ...retryHeader },
    body: JSON.stringify({ code, msg }),
  }
}

const ERRORS: Readonly<Record<number, readonly [code: number, msg: string]>> = {
  418: [
    -1003,
    'Way too much request weight used; IP banned. Please use WebSocket Streams for live updates to avoid bans.',
  ],
  429: [
    -1003,
    'Too much request weight used; current limit is 6000 request weight per 1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API.',
  ],
  451: [0, 'Service unavailable from a restricted location according to the terms of use.'],
}
