import { exchangeTimeUnit, type TimeUnit } from '../market/time-unit.ts'

/** Binance: "A single connection can listen to a maximum of 1024 streams." */
const MAX_STREAMS_PER_CONNECTION = 1024

/** URLs near 8,000 characters have failed; this leaves room for the host and for proxies. */
const MAX_URL_CHARACTERS = 7000

/** Maximum streams in one SUBSCRIBE message. */
const SUBSCRIBE_CHUNK = 200

/** The streams of one connection: its URL has those that fit, SUBSCRIBE messages the rest. */
export interface ConnectionPlan {
  readonly streams: readonly string[]
  readonly url: string
  readonly subscriptions: ReadonlyArray<readonly string[]>
}

/** Spreads streams over as few connections as the exchange's limits allow. */
export function planConnections(
  baseUrl: string,
  streams: readonly string[],
  unit: TimeUnit,
): ConnectionPlan[] {
  const plans: ConnectionPlan[] = []
  for (let first = 0; first < streams.length; first += MAX_STREAMS_PER_CONNECTION) {
    plans.push(planConnection(baseUrl, streams.slice(first, first + MAX_STREAMS_PER_CONNECTION), unit))
  }
  return plans
}

/** Changes the streams, on connections with room first. @returns the same plans where nothing changed */
export function changePlans(
  baseUrl: string,
  plans: readonly ConnectionPlan[],
  joining: readonly string[],
  leaving: ReadonlySet<string>,
  unit: TimeUnit,
): ConnectionPlan[] {
  let first = 0
  const changed = plans.map((plan) => {
    const kept = plan.streams.filter((stream) => !leaving.has(stream))
    const added = joining.slice(first, first + MAX_STREAMS_PER_CONNECTION - kept.length)
    first += added.length
    const isSame = added.length === 0 && kept.length === plan.streams.length
    return isSame ? plan : planConnection(baseUrl, [...kept, ...added], unit)
  })
  return [...changed, ...planConnections(baseUrl, joining.slice(first), unit)]
}

function planConnection(baseUrl: string, streams: readonly string[], unit: TimeUnit): ConnectionPlan {
  const end = `&timeUnit=${exchangeTimeUnit(unit)}`
  const base = `${baseUrl}/stream?streams=`
  let url = base
  let inUrl = 0
  for (const stream of streams) {
    // `@` and `/` need no encoding in a query; symbols may be non-ASCII and grow when encoded.
    const next = `${url}${inUrl === 0 ? '' : '/'}${encodeURIComponent(stream).replaceAll('%40', '@')}`
    if (next.length + end.length > MAX_URL_CHARACTERS) break
    url = next
    inUrl++
  }
  const subscriptions: string[][] = []
  for (let first = inUrl; first < streams.length; first += SUBSCRIBE_CHUNK) {
    subscriptions.push(streams.slice(first, first + SUBSCRIBE_CHUNK))
  }
  return { streams, url: url + end, subscriptions }
}
