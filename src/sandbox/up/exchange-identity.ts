import { askExchangeIdentity } from '../../foundation/binance/handshake.ts'
import { exchangeIdentity } from '../../foundation/binance/venue.ts'
import { describeError, TapelineError } from '../../foundation/runtime/errors.ts'
import { DEFINITIONS } from '../../foundation/settings/definitions.ts'
import type { Settings } from '../../foundation/settings/load.ts'

/** How long the exchange may take to say which one it is. */
const ANSWER_MS = 10_000

/** What `BINANCE_WS_URL` names where that is not Binance's own address; null where it is. */
export function otherExchangeUrl(settings: Settings): string | null {
  const url = settings.BINANCE_WS_URL
  return url === DEFINITIONS.BINANCE_WS_URL.fallback ? null : url
}

/**
 * The name of the exchange at this URL, by which its data has a directory of its own. Guessed wrong, the data of a
 * simulated market would lie where live data belongs: so it is asked before anything is opened.
 *
 * @throws TapelineError `EXCHANGE` when it cannot be asked, or gives a name that none has; `SETTINGS` when nobody names it
 */
export async function askedExchangeIdentity(settings: Settings): Promise<string> {
  const url = settings.BINANCE_WS_URL
  const named = await askExchangeIdentity(url, AbortSignal.timeout(ANSWER_MS)).catch((error: unknown) => {
    if (error instanceof TapelineError) throw error
    throw new TapelineError('EXCHANGE', `The exchange at ${url} does not answer: ${describeError(error)}`, {
      fix: 'Start it, or correct BINANCE_WS_URL; unset it for Binance itself.',
      cause: error,
    })
  })
  if (named === null || /^(simulated|replay:)/.test(named))
    return exchangeIdentity(named, {
      wsUrl: url,
      restUrl: settings.BINANCE_REST_URL,
      venue: settings.VENUE ?? null,
    })
  throw new TapelineError(
    'EXCHANGE',
    `The exchange at ${url} has an unknown name, ${JSON.stringify(named)}`,
    {
      fix: 'Correct BINANCE_WS_URL; unset it for Binance itself.',
    },
  )
}
