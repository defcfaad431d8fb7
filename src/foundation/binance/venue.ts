import type { TimeUnit } from '../market/time-unit.ts'
import { TapelineError } from '../runtime/errors.ts'

/** Binance itself; `up` keeps its data in the directory of this name. */
export const LIVE_VENUE = 'binance'

/** Exchanges that announce no name, by their host names for streams and REST. */
const HOSTS: ReadonlyArray<readonly [venue: string, hosts: RegExp]> = [
  [LIVE_VENUE, /^(stream|api|api\d|api-gcp)\.binance\.com$|^data-(stream|api)\.binance\.vision$/],
  ['binance-us', /^(stream|api)\.binance\.us$/],
  ['binance-testnet', /^((stream|api)\.)?testnet\.binance\.vision$/],
]

/** Returns the exchange of a URL; null for an unknown host, such as a reverse proxy. */
export function knownVenue(url: string): string | null {
  const host = URL.parse(url)?.hostname ?? ''
  return HOSTS.find(([, hosts]) => hosts.test(host))?.[0] ?? null
}

export interface VenueSettings {
  readonly wsUrl: string
  readonly restUrl: string
  /** The setting `VENUE`; null if unset. */
  readonly venue: string | null
}

/** Returns contradictions between the two URLs and `VENUE`, one line each. */
export function venueProblems({ wsUrl, restUrl, venue }: VenueSettings): string[] {
  const [streams, rest] = [knownVenue(wsUrl), knownVenue(restUrl)]
  if (streams !== null && rest !== null && streams !== rest)
    return [
      `BINANCE_REST_URL=${restUrl}: expected a host of ${streams}, like BINANCE_WS_URL=${wsUrl}, but this is a host of ${rest}`,
    ]
  const known = streams ?? rest
  if (venue === null || known === null || venue === known) return []
  return [
    `VENUE=${venue}: expected ${known}, or unset, because BINANCE_WS_URL or BINANCE_REST_URL is a host of ${known}`,
  ]
}

/**
 * Returns the name under which data is recorded: the announced one, or the venue.
 * @throws TapelineError `SETTINGS` if it is unknown, or if streams and REST are of different ones
 */
export function exchangeIdentity(named: string | null, { wsUrl, restUrl, venue }: VenueSettings): string {
  if (named !== null) {
    const rest = knownVenue(restUrl)
    if (rest === null) return named
    const message = `The exchange at ${wsUrl} is "${named}", and BINANCE_REST_URL=${restUrl} is ${rest}: gaps would be filled with trades of another exchange`
    const fix = 'Set BINANCE_REST_URL to the same exchange as BINANCE_WS_URL.'
    throw new TapelineError('SETTINGS', message, { fix })
  }
  const unknown = venue === null ? [wsUrl, restUrl].find((url) => knownVenue(url) === null) : undefined
  const name = venue ?? knownVenue(wsUrl)
  if (unknown === undefined && name !== null) return name
  const message = `The exchange at ${unknown} announces no name, and its host is unknown`
  throw new TapelineError('SETTINGS', message, {
    fix: 'Set VENUE to the name of the exchange, such as binance or binance-us: data of two exchanges must not be mixed.',
  })
}

/** Returns the error for times in another unit. A trade in both units would become two rows. */
export function otherUnit(side: 'REST' | 'The exchange', unit: TimeUnit, asked: TimeUnit): TapelineError {
  const setting = `BINANCE_${side === 'REST' ? 'REST' : 'WS'}_URL`
  const message = `${side} sends times in ${unit}s, although Tapeline requested ${asked}s`
  const fix = `Set TIME_UNIT=${unit}, with topics and a database that hold no times in ${asked}s; or correct ${setting}.`
  return new TapelineError('EXCHANGE', message, { fix })
}
