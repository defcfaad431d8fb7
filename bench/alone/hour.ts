import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { pipelineAlone } from '../../test/support/pipeline-alone.ts'
import { VirtualClock } from '../../test/support/virtual-clock.ts'

const SYMBOLS = Array.from({ length: 1500 }, (_, i) => `COIN${i}USDT`)
const MINUTES = 60
const REPORT_EVERY_MINUTES = 10
/** A trade, an aggTrade and four quotes, the mix of the built-in exchange. */
const MESSAGES_A_TURN = 6
const QUOTES_A_TURN = 4
/** Step of the virtual clock: messages of one step are acknowledged after it. */
const STEP_MS = 100
const LOG = { debug() {}, info() {}, warn: console.error, error: console.error }

/**
 * Simulates an hour of 1,500 equally busy symbols in virtual time: frames through ingestion's
 * pipeline, acknowledged at once, without sockets, queue and Kafka. Run it with the Node options of
 * `bin/tapeline`.
 *
 * @returns by minute, resident MiB and the MiB of the heap in use after a garbage collection
 */
export async function liveAnHour(messagesPerSecond: number): Promise<Record<string, number>> {
  const clock = new VirtualClock()
  const { pipeline, acknowledge } = pipelineAlone(clock, SYMBOLS, LOG)
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
      for (const frame of frames) pipeline.core.onFrame(frame, 0)
    }
    acknowledge()
    const minute = (step * STEP_MS) / 60_000
    if (minute % REPORT_EVERY_MINUTES !== 0) continue
    report[`after ${minute} min`] = residentMiB()
    report[`live heap after ${minute} min`] = liveHeapMiB()
    console.error(`after ${minute} min: ${residentMiB()} MiB`)
  }
  const { received, forwarded } = pipeline.core.counters
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

setFlagsFromString('--expose-gc')
const collect: unknown = runInNewContext('gc')

function liveHeapMiB(): number {
  if (typeof collect === 'function') collect()
  return Math.round(process.memoryUsage().heapUsed / 2 ** 20)
}
