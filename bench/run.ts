import { type AppendedMessages, appendedSince } from './append-times.ts'
import type { BenchOptions } from './options.ts'
import type { Measured, Pipeline } from './pipeline.ts'
import type { Place } from './place.ts'
import { produced, waitUntilStored } from './progress.ts'
import { type CommittedRows, rowsSince } from './rows.ts'
import { Sampler } from './sampler.ts'

/**
 * Figures by name: times in seconds, memory in MiB, rates per second, latencies in milliseconds.
 */
export type Figures = Readonly<Record<string, number>>

/**
 * Excludes the first rows of a phase, which belong to its start, and the last, which wait for the
 * flush timer.
 */
export const SHARES = [0.02, 0.98] as const
/** Messages received this long before the end of a phase may wait for the flush timer. */
export const LAST_FLUSH_US = 2_500_000
const WAIT_FOR_CLIENT_MS = 30_000
const MiB = 1 << 20

/** Runs one pipeline through the requested stages, with new topics and an empty database. */
export async function runPipeline(
  place: Place,
  lay: () => Promise<Pipeline>,
  options: BenchOptions,
  signal: AbortSignal,
): Promise<Record<string, Figures>> {
  const figures: Record<string, Figures> = {}
  const pipeline = await lay()
  const { feeder } = place
  await feeder.rewind()
  const running: Measured[] = []
  try {
    const consumer = await pipeline.startConsumer(options.settings)
    running.push(consumer)
    const ingestion = await pipeline.startIngestion()
    running.push(ingestion)
    let fed = 0
    const phase = async (count: number, perSecond: number | null) => {
      const expectedMs = (count / (perSecond ?? 2000)) * 1000
      const sampler = new Sampler({
        ingestion: ingestion.pid,
        consumer: consumer.pid,
        broker: place.brokerPid,
        database: place.postgresPid,
      })
      const before = sampler.now()
      const { startedUs, endedUs } = await feeder.feed(count, perSecond)
      fed += count
      await waitUntilStored(place, pipeline, fed, WAIT_FOR_CLIENT_MS + expectedMs, signal)
      const after = sampler.now()
      sampler.stop()
      const usage: Record<string, number> = {}
      for (const [name, { cpuSeconds, peakBytes }] of Object.entries(after)) {
        usage[`${name} µs`] = ((cpuSeconds - (before[name]?.cpuSeconds ?? 0)) * 1e6) / count
        if (name === 'ingestion' || name === 'consumer') usage[`${name} MiB`] = peakBytes / MiB
      }
      return { startedUs, endedUs, usage }
    }
    await phase(options.warmUp, null)
    if (options.stages.includes('flat out')) {
      const { startedUs, usage } = await phase(options.messages, null)
      const rows = await rowsSince(pipeline, startedUs, SHARES)
      requireRows(rows, options.messages)
      figures['flat out'] = { 'rows/s': (SHARES[1] * rows.rows) / rows.toSeconds, ...usage }
    }
    if (options.stages.includes('steady')) {
      for (const rate of options.rates) {
        const count = rate * options.steadySeconds
        const { startedUs, endedUs, usage } = await phase(count, rate)
        const rows = await rowsSince(pipeline, startedUs, SHARES, endedUs - LAST_FLUSH_US)
        requireRows(rows, count)
        const appended = await appendedSince(place, pipeline, startedUs)
        figures[`${rate}/s`] = { ...usage, ...latencies(rows, appended) }
      }
    }
    for (const process of running.splice(0).reverse()) await process.stop()
    if (options.stages.includes('drain')) figures['drain'] = await drain(place, pipeline, options, signal)
    return figures
  } catch (error) {
    const said = running.map((process) => process.output().slice(-2000)).join('\n')
    throw new Error(`The run failed; output of the services:\n${said}`, { cause: error })
  } finally {
    for (const process of running) await process.stop()
    await pipeline.remove()
  }
}

/** Starts one consumer after all messages are in the topics. */
async function drain(
  place: Place,
  filled: Pipeline,
  options: BenchOptions,
  signal: AbortSignal,
): Promise<Figures> {
  const pipeline = await filled.again()
  const messages = await produced(place, pipeline)
  const consumer = await pipeline.startConsumer(options.settings)
  try {
    const sampler = new Sampler({ consumer: consumer.pid, database: place.postgresPid })
    const before = sampler.now()
    await waitUntilStored(place, pipeline, messages, WAIT_FOR_CLIENT_MS + messages, signal)
    const after = sampler.now()
    sampler.stop()
    const rows = await rowsSince(pipeline, 0, SHARES)
    requireRows(rows, messages)
    const seconds = rows.toSeconds - rows.fromSeconds
    const micros = (name: string) =>
      (((after[name]?.cpuSeconds ?? 0) - (before[name]?.cpuSeconds ?? 0)) * 1e6) / messages
    return {
      'rows/s': ((SHARES[1] - SHARES[0]) * rows.rows) / seconds,
      'consumer µs': micros('consumer'),
      'database µs': micros('database'),
      'consumer MiB': (after['consumer']?.peakBytes ?? 0) / MiB,
    }
  } finally {
    await consumer.stop()
    await pipeline.remove()
  }
}

export function requireRows({ rows }: CommittedRows, expected: number): void {
  if (rows !== expected) throw new Error(`${expected} messages were sent, but ${rows} rows were stored`)
}

function latencies(rows: CommittedRows, appended: AppendedMessages): Figures {
  const of = {
    'event→receipt': appended.eventToReceipt,
    'receipt→Kafka': appended.receiptToAppend,
    'receipt→row': rows.receiptToRow,
    'event→row': rows.eventToRow,
  }
  return Object.fromEntries(
    Object.entries(of).flatMap(([name, { p50, p90, p99, p999, max }]) => [
      [`${name} p50`, p50],
      [`${name} p90`, p90],
      [`${name} p99`, p99],
      [`${name} p99.9`, p999],
      [`${name} max`, max],
    ]),
  )
}
