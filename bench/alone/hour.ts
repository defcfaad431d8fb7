import type { RecordFetcher } from '../../src/foundation/kafka/kafka-port.ts'
import { loadSettings } from '../../src/foundation/settings/load.ts'
import { AcknowledgedState } from '../../src/ingestion/checkpoint/acknowledged-state.ts'
import { ingestionConfig } from '../../src/ingestion/config.ts'
import type { OutgoingMessage } from '../../src/ingestion/messages/outgoing-message.ts'
import { Pipeline } from '../../src/ingestion/pipeline.ts'
import { streamNames } from '../../src/ingestion/symbols.ts'
import { VirtualClock } from '../../test/support/virtual-clock.ts'

const SYMBOLS = Array.from({ length: 1500 }, (_, i) => `COIN${i}USDT`)
const PARTITIONS = 3
const MINUTES = 60
const REPORT_EVERY_MINUTES = 10
/** A trade, an aggTrade and four quotes, as the built-in exchange has them. */
const MESSAGES_A_TURN = 6
const QUOTES_A_TURN = 4
/** Steps of the virtual clock: what comes within one is acknowledged after it. */
const STEP_MS = 100
const LOG = { debug() {}, info() {}, warn: console.error, error: console.error }

const never = () => Promise.reject(new Error('Nothing is asked for here'))

/**
 * An hour of 1,500 symbols that are all as busy, in virtual time: frames through the pipeline of ingestion, which are acknowledged
 * at once, without sockets, queue and Kafka. Run with the options that `bin/tapeline` gives to Node.
 *
 * @returns resident MiB by minute
 */
export async function liveAnHour(messagesPerSecond: number): Promise<Record<string, number>> {
  const clock = new VirtualClock()
  const config = ingestionConfig(loadSettings({}, { cwd: '/nonexistent' }))
  const layouts = new Map(
    Object.values(config.topics).map((topic) => [topic, { id: topic, partitions: PARTITIONS }]),
  )
  const fetcher: RecordFetcher = {
    connect: async () => layouts,
    leaderOf: () => 0,
    offsetRanges: async () => [],
    fetch: never,
    read: never,
    close: async () => {},
  }
  const memory = new AcknowledgedState()
  let sent: OutgoingMessage[] = []
  let fatal: unknown
  const pipeline = new Pipeline(
    config,
    {
      ports: {
        clock,
        random: () => 0.5,
        exchange: {
          askExchangeIdentity: never,
          symbols: never,
          serverTimeMs: never,
          fetchTrades: async () => ({ kind: 'rows', rows: [] }),
          openSocket: () => {
            throw new Error('Nothing is opened here')
          },
        },
        kafka: {
          requireAccess: never,
          producer: () => {
            throw new Error('Nothing is produced here')
          },
          fetcher: () => fetcher,
        },
      },
      instance: 'hour',
      counters: new Map(),
      lostQuotes: new Map(),
      rows: { own: [], foreign: [], emptied: [] },
      truncations: 0,
      isLedgerRecreated: false,
      watch: {
        check: async () => {},
        close: async () => {},
        position: () => 0,
        recreated() {},
        truncations: 0,
      },
      tails: { learn: async () => {}, leaderEpoch: () => 0, close: async () => {}, recreated() {} },
      topics: layouts,
      symbols: SYMBOLS,
      send: (message) => sent.push(message),
      isHeld: () => false,
      settled: async () => {},
      whenRoom: async () => {},
      claimTopics() {},
      onSecond() {},
      dropConnections() {},
      onFatal: (error) => {
        fatal = error
      },
      log: LOG,
    },
    memory,
  )
  const offsets = new Map<string, number>()
  const acknowledge = () => {
    const messages = sent
    sent = []
    for (const [place, inPlace] of Map.groupBy(messages, ({ topic, partition }) => `${topic}:${partition}`)) {
      const [first] = inPlace
      if (first === undefined) continue
      const offset = (offsets.get(place) ?? 0) + inPlace.length
      offsets.set(place, offset)
      pipeline.onAcknowledged(inPlace, { topic: first.topic, partition: first.partition, offset })
    }
  }
  acknowledge()
  pipeline.start()
  const streams = streamNames(SYMBOLS, config.eventTypes)
  pipeline.connected(0, { streams, subscriptions: [] })

  const report: Record<string, number> = { 'at the start': residentMiB() }
  const perStep = Math.round((messagesPerSecond * STEP_MS) / 1000 / MESSAGES_A_TURN)
  let turn = 0
  for (let step = 1; step <= (MINUTES * 60_000) / STEP_MS; step++) {
    await clock.advance(STEP_MS)
    for (let i = 0; i < perStep; i++, turn++) {
      const symbol = SYMBOLS[turn % SYMBOLS.length] ?? ''
      const frames = framesOf(
        symbol,
        Math.floor(turn / SYMBOLS.length),
        Math.floor(clock.wallMicros() / 1000),
      )
      for (const frame of frames) pipeline.handle(frame, 0, () => {})
    }
    acknowledge()
    if (fatal !== undefined) throw fatal
    const minute = (step * STEP_MS) / 60_000
    if (minute % REPORT_EVERY_MINUTES !== 0) continue
    report[`after ${minute} min`] = residentMiB()
    console.error(`after ${minute} min: ${residentMiB()} MiB`)
  }
  const { received, forwarded } = pipeline.handler.counters
  return { ...report, received, forwarded }
}

function framesOf(symbol: string, n: number, timeMs: number): Buffer[] {
  const lower = symbol.toLowerCase()
  const id = 1_000_000_000 + n
  const quotes = Array.from(
    { length: QUOTES_A_TURN },
    (_, i) =>
      `{"stream":"${lower}@bookTicker","data":{"u":${50_000_000_000 + 3 * (n * QUOTES_A_TURN + i)},"s":"${symbol}","b":"1.00000000","B":"2.00000000","a":"1.10000000","A":"3.00000000"}}`,
  )
  const common = `"p":"1.05000000","q":"0.50000000"`
  return [
    `{"stream":"${lower}@trade","data":{"e":"trade","E":${timeMs},"s":"${symbol}","t":${id},${common},"T":${timeMs},"m":true,"M":true}}`,
    `{"stream":"${lower}@aggTrade","data":{"e":"aggTrade","E":${timeMs},"s":"${symbol}","a":${id},${common},"f":${id},"l":${id},"T":${timeMs},"m":true,"M":true}}`,
    ...quotes,
  ].map((text) => Buffer.from(text))
}

function residentMiB(): number {
  return Math.round(process.memoryUsage().rss / 2 ** 20)
}
