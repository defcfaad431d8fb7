import { EXCHANGE_IDENTITY_KEY } from '../foundation/kafka/exchange-identity-mark.ts'
import type { KafkaPort } from '../foundation/kafka/kafka-port.ts'
import { readRange } from '../foundation/kafka/read-range.ts'
import { type StreamType, streamName } from '../foundation/market/event.ts'
import type { RestCaller } from './backfill/rest-caller.ts'

/** Returns the stream names of symbols and event types, grouped by symbol. */
export function streamNames(symbols: Iterable<string>, eventTypes: readonly StreamType[]): string[] {
  return [...symbols].flatMap((symbol) => eventTypes.map((type) => streamName(symbol, type)))
}

/** Returns when a symbol first traded, ms since the Unix epoch; or null. @throws if REST fails */
export async function firstTradeMs(
  rest: Pick<RestCaller, 'ask'> | undefined,
  symbol: string,
  signal: AbortSignal,
): Promise<number | null> {
  const outcome = await rest?.ask({ type: 'trade', symbol, fromId: 0, limit: 1 }, 'urgent', signal)
  if (outcome?.kind === 'refused') throw new Error(outcome.refusal.reason)
  if (outcome?.kind === 'failed') throw new Error(outcome.reason)
  const [first] = outcome?.rows ?? []
  return first === undefined ? null : Math.floor(first.timeUs / 1000)
}

/** Returns the symbols that have a checkpoint in the topic. */
export async function checkpointedSymbols(
  kafka: Pick<KafkaPort, 'fetcher'>,
  checkpoints: string,
): Promise<Set<string>> {
  const fetcher = kafka.fetcher('tapeline-ingestion-symbols', [checkpoints])
  const symbols = new Set<string>()
  try {
    await fetcher.connect()
    for (const range of await fetcher.offsetRanges()) {
      await readRange(fetcher, range, ({ key, value }) => {
        const symbol = key?.toString() ?? ''
        if (value !== null && symbol !== '' && symbol !== EXCHANGE_IDENTITY_KEY) symbols.add(symbol)
      })
    }
    return symbols
  } finally {
    await fetcher.close()
  }
}
