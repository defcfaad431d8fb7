import { ExchangeGate } from '../../src/foundation/binance/exchange-gate.ts'
import type { RecordFetcher } from '../../src/foundation/kafka/kafka-port.ts'
import type { Clock } from '../../src/foundation/runtime/clock.ts'
import { loadSettings } from '../../src/foundation/settings/load.ts'
import type { Logger } from '../../src/foundation/telemetry/log.ts'
import { AcknowledgedState } from '../../src/ingestion/checkpoint/acknowledged-state.ts'
import { ingestionConfig } from '../../src/ingestion/config.ts'
import type { OutgoingMessage } from '../../src/ingestion/messages/message.ts'
import { Pipeline } from '../../src/ingestion/pipeline.ts'
import { streamNames } from '../../src/ingestion/symbols.ts'
import { deliveryTo } from './core-alone.ts'

const PARTITIONS = 3

const never = () => Promise.reject(new Error('Unexpected request'))
const nothing = () => {
  throw new Error('Unexpected open')
}

/**
 * Ingestion's pipeline with one connection that delivers all streams, without sockets, queue and
 * Kafka. Its start records are acknowledged.
 *
 * @param checkInstances the check for other instances
 */
export function pipelineAlone(
  clock: Clock,
  symbols: readonly string[],
  log: Logger,
  checkInstances: () => Promise<void> = async () => {},
) {
  const config = ingestionConfig(loadSettings({}, { cwd: '/nonexistent' }))
  const topics = new Map(
    Object.values(config.topics).map((topic) => [topic, { id: topic, partitions: PARTITIONS }]),
  )
  const fetcher: RecordFetcher = {
    connect: async () => topics,
    leaderOf: () => 0,
    offsetRanges: async () => [],
    fetch: never,
    read: never,
    close: async () => {},
  }
  let sent: OutgoingMessage[] = []
  let fatal: { readonly error: unknown } | null = null
  const pipeline = new Pipeline(
    {
      config,
      ports: {
        clock,
        random: () => 0.5,
        exchange: {
          askExchange: never,
          askRest: never,
          symbols: never,
          serverTimeMs: never,
          fetchTrades: () => async () => ({ kind: 'rows', rows: [] }),
          fetchBook: () => never,
          openSocket: nothing,
        },
        kafka: { requireAccess: never, producer: nothing, fetcher: () => fetcher },
      },
      gate: new ExchangeGate(
        clock,
        () => 0.5,
        (level, details, text) => log[level](details, text),
      ),
      topics,
      symbols: new Set(symbols),
      source: 'simulated',
      timeUnit: 'millisecond',
      producer: deliveryTo((message) => sent.push(message)),
      claimTopics() {},
      onFatal: (error) => {
        fatal = { error }
      },
      log,
    },
    {
      memory: new AcknowledgedState(),
      instance: 'alone',
      counters: new Map(),
      lostQuotes: new Map(),
      rows: { own: [], foreign: [], emptied: [] },
      truncations: 0,
      isLedgerRecreated: false,
      watch: {
        check: checkInstances,
        close: async () => {},
        position: () => 0,
        recreated() {},
        truncations: 0,
      },
      tails: { learn: async () => {}, leaderEpoch: () => 0, close: async () => {}, recreated() {} },
    },
  )
  const offsets = new Map<string, number>()
  /** Returns the messages sent since the last call. @throws the error that ended the pipeline */
  const acknowledge = (): readonly OutgoingMessage[] => {
    if (fatal !== null) throw fatal.error
    const messages = sent
    sent = []
    for (const [place, inPlace] of Map.groupBy(messages, ({ topic, partition }) => `${topic}:${partition}`)) {
      const [first] = inPlace
      if (first === undefined) continue
      const offset = (offsets.get(place) ?? 0) + inPlace.length
      offsets.set(place, offset)
      pipeline.onAcknowledged(inPlace, { topic: first.topic, partition: first.partition, offset })
    }
    return messages
  }
  acknowledge()
  pipeline.start()
  pipeline.receipts.start({ onSecond: () => pipeline.onSecond(), onFreeze() {}, onStep() {} })
  pipeline.core.connected(0, { streams: streamNames(symbols, config.eventTypes), subscriptions: [] })
  return { pipeline, acknowledge }
}
