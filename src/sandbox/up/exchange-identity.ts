import { ExchangeGate } from '../../foundation/binance/exchange-gate.ts'
import { ExchangeRefusal } from '../../foundation/binance/refusal.ts'
import { askExchange } from '../../foundation/binance/stream-socket.ts'
import { exchangeIdentity } from '../../foundation/binance/venue.ts'
import { systemClock } from '../../foundation/runtime/clock.ts'
import { describeError, isTapelineError, TapelineError } from '../../foundation/runtime/errors.ts'
import { DEFINITIONS } from '../../foundation/settings/definitions.ts'
import type { Settings } from '../../foundation/settings/load.ts'

const ANSWER_MS = 10_000

/** The URL in `BINANCE_WS_URL`, if it is not Binance's default address; otherwise null. */
export function otherExchangeUrl(settings: Settings): string | null {
  const url = settings.BINANCE_WS_URL
  return url === DEFINITIONS.BINANCE_WS_URL.fallback ? null : url
}

/**
 * Asks the exchange for its name before anything is opened: a wrong guess would mix simulated and
 * live data. A refusal may be temporary: `up` waits.
 * @throws TapelineError `EXCHANGE` without an answer or a known name; `SETTINGS` when none is known
 */
export async function askedExchangeIdentity(settings: Settings): Promise<string> {
  const { BINANCE_WS_URL: url, BINANCE_REST_URL: restUrl, VENUE: venue = null } = settings
  const named = await whatItNamesItself(url)
  if (named === null || /^(simulated|replay:)/.test(named))
    return exchangeIdentity(named, { wsUrl: url, restUrl, venue })
  const unknown = `The exchange at ${url} has an unknown name, ${JSON.stringify(named)}`
  throw new TapelineError('EXCHANGE', unknown, { fix: 'Correct BINANCE_WS_URL; unset it to use Binance.' })
}

/** @returns null when the exchange does not name itself */
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
      if (isTapelineError(error)) throw error
      if (error instanceof ExchangeRefusal) continue
      const silent = `The exchange at ${url} does not answer: ${describeError(error)}`
      const fix = 'Start it, or correct BINANCE_WS_URL; unset it to use Binance.'
      throw new TapelineError('EXCHANGE', silent, { fix, cause: error })
    }
  }
}
