import { TapelineError } from '../runtime/errors.ts'

/** Binance's own exchange, whose data `up` keeps in the directory of this name. */
export const LIVE_VENUE = 'binance'

/** Exchanges that do not name themselves, by their host names for streams and REST. */
const HOSTS: ReadonlyArray<readonly [venue: string, hosts: RegExp]> = [
  [LIVE_VENUE, /^(stream|api|api\d|api-gcp)\.binance\.com$|^data-(stream|api)\.binance\.vision$/],
  ['binance-us', /^(stream|api)\.binance\.us$/],
  ['binance-testnet', /^((stream|api)\.)?testnet\.binance\.vision$/],
]

/** The exchange that a URL leads to; null where the host is none of theirs, such as a reverse proxy. */
export function knownVenue(url: string): string | null {
  const host = URL.parse(url)?.hostname ?? ''
  return HOSTS.find(([, hosts]) => hosts.test(host))?.[0] ?? null
}

export interface VenueSettings {
  readonly wsUrl: string
  readonly restUrl: string
  /** The setting `VENUE`; null where it is not set. */
  readonly venue: string | null
}

/** Contradictions between the two URLs and `VENUE`, one line each. */
export function venueProblems({ wsUrl, restUrl, venue }: VenueSettings): string[] {
  const [streams, rest] = [knownVenue(wsUrl), knownVenue(restUrl)]
  if (streams !== null && rest !== null && streams !== rest)
    return [
      `BINANCE_REST_URL=${restUrl}: expected a host of ${streams}, as BINANCE_WS_URL=${wsUrl} is; it is one of ${rest}`,
    ]
  const known = streams ?? rest
  if (venue === null || known === null || venue === known) return []
  return [`VENUE=${venue}: expected ${known}, or none, since BINANCE_WS_URL or BINANCE_REST_URL leads there`]
}

/**
 * The name under which data is recorded: the one that the exchange gives itself, as our simulators do; otherwise the venue.
 *
 * @param named what it names itself in the WebSocket upgrade; null where it does not
 * @throws TapelineError `SETTINGS` when nobody names it, or when streams and REST are of different exchanges
 */
export function exchangeIdentity(named: string | null, { wsUrl, restUrl, venue }: VenueSettings): string {
  if (named !== null) {
    const rest = knownVenue(restUrl)
    if (rest === null) return named
    throw new TapelineError(
      'SETTINGS',
      `The exchange at ${wsUrl} is "${named}", and BINANCE_REST_URL=${restUrl} is ${rest}: gaps would be filled with other trades`,
      { fix: 'Set BINANCE_REST_URL to the same exchange as BINANCE_WS_URL.' },
    )
  }
  const unknown = venue === null ? [wsUrl, restUrl].find((url) => knownVenue(url) === null) : undefined
  const name = venue ?? knownVenue(wsUrl)
  if (unknown === undefined && name !== null) return name
  throw new TapelineError(
    'SETTINGS',
    `The exchange at ${unknown} does not name itself, and its host is not known`,
    {
      fix: 'Set VENUE to the exchange that it leads to, such as binance or binance-us: data of two exchanges must not be mixed.',
    },
  )
}
