import { TRADING } from '../foundation/binance/exchange-info.ts'
import { thatTrade } from '../foundation/binance/rest.ts'
import { partitionOf } from '../foundation/kafka/partition-map.ts'
import { type EventType, streamName } from '../foundation/market/event.ts'
import { describeError, TapelineError } from '../foundation/runtime/errors.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { IngestionConfig } from './config.ts'
import type { Ports } from './ports.ts'

/**
 * The symbols to take: those of the settings, checked with the exchange, or all that trade for `*`; of these, this
 * instance's shard.
 *
 * A symbol that is halted is taken all the same, with a warning: it may trade again at any time, and the others must
 * not wait for it. A REST interface that is down or refuses us is a warning, except for `*`, which cannot do without.
 *
 * @throws TapelineError `EXCHANGE` naming the symbols that the exchange does not know, or when this shard has none; for
 *   `*` what `ask` throws, which may pass
 */
export async function resolveSymbols(
  config: Pick<IngestionConfig, 'symbols' | 'shard' | 'restUrl'>,
  ask: Ports['exchange']['symbols'],
  log: Logger,
  signal: AbortSignal,
): Promise<string[]> {
  const all = config.symbols.join() === '*'
  const known = await knownSymbols(ask, all, log, signal)
  const wrong = all || known === null ? [] : config.symbols.filter((symbol) => !known.has(symbol))
  if (wrong.length > 0) {
    throw new TapelineError(
      'EXCHANGE',
      `Not spot symbols that trade on ${config.restUrl}: ${wrong.join(', ')}`,
      {
        fix: 'Correct SYMBOLS; the exchange would answer their streams with silence.',
      },
    )
  }
  const symbols = all ? thatTrade(known ?? new Map()) : config.symbols
  const { index, count } = config.shard
  const ours = symbols.filter((symbol) => partitionOf(symbol, count) === index)
  if (ours.length === 0) {
    throw new TapelineError('EXCHANGE', `Shard ${index}/${count} has none of the ${symbols.length} symbols`, {
      fix: 'Use fewer shards than symbols; which symbol falls to which shard is decided by its murmur2 hash.',
    })
  }
  const halted = ours.filter((symbol) => (known?.get(symbol) ?? TRADING) !== TRADING)
  if (halted.length > 0) {
    const named = halted.map((symbol) => `${symbol} (${known?.get(symbol)})`).join(', ')
    log.warn(`Symbols that do not trade now, taken all the same: ${named}`)
  }
  return ours
}

/** Stream names of symbols and event types, all types of a symbol together. */
export function streamNames(symbols: readonly string[], eventTypes: readonly EventType[]): string[] {
  return symbols.flatMap((symbol) => eventTypes.map((type) => streamName(symbol, type)))
}

async function knownSymbols(
  ask: Ports['exchange']['symbols'],
  needed: boolean,
  log: Logger,
  signal: AbortSignal,
): Promise<ReadonlyMap<string, string> | null> {
  try {
    return await ask(signal)
  } catch (error) {
    if (needed || error instanceof TapelineError || signal.aborted) throw error
    log.warn(
      { fix: 'Check BINANCE_REST_URL and the network.' },
      `Symbols are not checked: ${describeError(error)}`,
    )
    return null
  }
}
