import { describeError, TapelineError } from '../errors.ts'
import { partitionOf } from '../kafka/partition-map.ts'
import { type EventType, streamName } from '../market/event.ts'
import type { Logger } from '../telemetry/log.ts'
import type { IngestionConfig } from './config.ts'
import type { Outside } from './outside.ts'

/**
 * The symbols to take: those of the settings, checked with the exchange, or all that trade for `*`; of these, this
 * instance's shard.
 *
 * A REST interface that is down is a warning, except for `*`, which cannot do without.
 *
 * @throws TapelineError `EXCHANGE` naming the symbols that do not trade, or when this shard has none
 */
export async function resolveSymbols(
  config: IngestionConfig,
  askTrading: Outside['exchange']['tradingSymbols'],
  log: Logger,
  signal: AbortSignal,
): Promise<string[]> {
  const all = config.symbols.join() === '*'
  const trading = await tradingSymbols(askTrading, all, log, signal)
  const wrong = all || trading === null ? [] : config.symbols.filter((symbol) => !trading.has(symbol))
  if (wrong.length > 0) {
    throw new TapelineError(
      'EXCHANGE',
      `Not spot symbols that trade on ${config.restUrl}: ${wrong.join(', ')}`,
      {
        fix: 'Correct SYMBOLS; the exchange would answer their streams with silence.',
      },
    )
  }
  const symbols = all ? [...(trading ?? [])].sort() : config.symbols
  const { index, count } = config.shard
  const ours = symbols.filter((symbol) => partitionOf(symbol, count) === index)
  if (ours.length === 0) {
    throw new TapelineError('EXCHANGE', `Shard ${index}/${count} has none of the ${symbols.length} symbols`, {
      fix: 'Use fewer shards than symbols; which symbol falls to which shard is decided by its murmur2 hash.',
    })
  }
  return ours
}

/** Stream names of symbols and event types, all types of a symbol together. */
export function streamNames(symbols: readonly string[], eventTypes: readonly EventType[]): string[] {
  return symbols.flatMap((symbol) => eventTypes.map((type) => streamName(symbol, type)))
}

async function tradingSymbols(
  ask: Outside['exchange']['tradingSymbols'],
  needed: boolean,
  log: Logger,
  signal: AbortSignal,
): Promise<Set<string> | null> {
  try {
    return await ask(signal)
  } catch (error) {
    if (error instanceof TapelineError || signal.aborted) throw error
    if (needed) {
      throw new TapelineError('EXCHANGE', `SYMBOLS=* needs the list of symbols: ${describeError(error)}`, {
        fix: 'Check BINANCE_REST_URL and the network, or name the symbols.',
        cause: error,
      })
    }
    log.warn(`Symbols are not checked: ${describeError(error)}`)
    return null
  }
}
