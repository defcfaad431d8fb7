import { ExchangeGate } from '../../foundation/binance/exchange-gate.ts'
import { askExchange } from '../../foundation/binance/handshake.ts'
import { ExchangeRefusal } from '../../foundation/binance/refusal.ts'
import { exchangeIdentity } from '../../foundation/binance/venue.ts'
import { systemClock } from '../../foundation/runtime/clock.ts'
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
 * The name of the exchange at this URL, by which its data has a separate directory. Guessed wrong, the data of a
 * simulated market would lie where live data belongs: so it is asked before anything is opened. A refusal may pass:
 * `up` waits and says so.
 *
 * @throws TapelineError `EXCHANGE` when it cannot be asked, or gives a name that none has; `SETTINGS` when nobody names it
 */
export async function askedExchangeIdentity(settings: Settings): Promise<string> {
  const url = settings.BINANCE_WS_URL
  const named = await whatItNamesItself(url)
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

/** @returns null where it does not name itself */
async function whatItNamesItself(url: string): Promise<string | null> {
  const gate = new ExchangeGate(systemClock(), Math.random, (_level, { fix }, text) => {
    process.stderr.write(`${text}${fix === undefined ? '' : `. ${fix}`}\n`)
  })
  const { signal } = new AbortController()
  for (;;) {
    await gate.wait('handshakes', signal)
    try {
      const ask = () => askExchange(url, AbortSignal.timeout(ANSWER_MS))
      return (await gate.attempt('handshakes', ask)).named
    } catch (error) {
      if (error instanceof TapelineError) throw error
      if (!(error instanceof ExchangeRefusal))
        throw new TapelineError(
          'EXCHANGE',
          `The exchange at ${url} does not answer: ${describeError(error)}`,
          {
            fix: 'Start it, or correct BINANCE_WS_URL; unset it for Binance itself.',
            cause: error,
          },
        )
    }
  }
}
