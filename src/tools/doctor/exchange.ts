import { TRADING } from '../../foundation/binance/exchange-info.ts'
import { byProxy } from '../../foundation/binance/proxy.ts'
import { ruleOf } from '../../foundation/binance/refusal.ts'
import { fetchServerTime, fetchSymbols } from '../../foundation/binance/rest.ts'
import { askExchange } from '../../foundation/binance/stream-socket.ts'
import { exchangeIdentity } from '../../foundation/binance/venue.ts'
import type { Settings } from '../../foundation/settings/load.ts'
import { plural } from '../../foundation/telemetry/plural.ts'
import { type IngestionStatus, unfilledGaps } from '../../foundation/telemetry/status.ts'
import { ofClock } from './database.ts'
import { bad, type Finding, good, warning } from './finding.ts'

/** Checks REST and WebSocket of the exchange, its clock, and that it knows the symbols. */
export async function checkExchange(settings: Settings, signal: AbortSignal): Promise<Finding[]> {
  const { BINANCE_REST_URL: restUrl, BINANCE_WS_URL: wsUrl, VENUE: venue = null } = settings
  const statuses = await fetchSymbols(restUrl, signal)
  const clock = await clockOf(restUrl, signal)
  const { named } = await askExchange(wsUrl, signal)
  const identity = exchangeIdentity(named, { wsUrl, restUrl, venue })
  return [
    good('exchange REST', `${restUrl}${byProxy(restUrl)} answers`),
    clock,
    ofSymbols(settings, statuses),
    good('exchange WebSocket', `${wsUrl}${byProxy(wsUrl)} answers: ${identity}`),
  ]
}

/** Lists what the exchange refuses a running ingestion, and the gaps that it therefore cannot fill. */
export function ofRefusals({
  refusals,
  openGaps,
}: Pick<IngestionStatus, 'refusals' | 'openGaps'>): Finding[] {
  const unfilled = unfilledGaps(openGaps)
  const names = { rest: 'exchange REST', handshakes: 'exchange WebSocket' }
  const refused = (['rest', 'handshakes'] as const).flatMap((side) => {
    const refused = refusals[side]
    if (refused === null) return []
    const { status, reason, retryAt } = refused
    const { fix } = ruleOf({ status, code: null })
    return [warning(names[side], `ingestion is refused: ${reason}; next attempt ${retryAt}`, fix)]
  })
  return unfilled === null ? refused : [...refused, warning('gaps', unfilled.text, unfilled.fix)]
}

async function clockOf(rest: string, signal: AbortSignal): Promise<Finding> {
  const before = Date.now()
  const serverTime = await fetchServerTime(rest, signal)
  return ofClock('exchange clock', serverTime - (before + Date.now()) / 2)
}

function ofSymbols({ SYMBOLS }: Settings, statuses: ReadonlyMap<string, string>): Finding {
  if (SYMBOLS.includes('*')) return good('symbols', `*: ${plural(statuses.size, 'symbol')}`)
  const wrong = SYMBOLS.filter((symbol) => !statuses.has(symbol))
  const still = SYMBOLS.filter((symbol) => statuses.has(symbol) && statuses.get(symbol) !== TRADING)
  if (wrong.length > 0) {
    const fix = 'Correct SYMBOLS in the environment or in .env.'
    return bad('symbols', `unknown to the exchange: ${wrong.join(', ')}`, fix)
  }
  const halted = still.length > 0 ? `; not trading now: ${still.join(', ')}` : ''
  return good('symbols', `${SYMBOLS.join(', ')} are known${halted}`)
}
