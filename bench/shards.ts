import { until } from '../test/support/wait-for.ts'
import type { BenchOptions } from './options.ts'
import type { Measured } from './pipeline.ts'
import type { Place } from './place.ts'
import { produced } from './progress.ts'
import type { Figures } from './run.ts'
import { Sampler } from './sampler.ts'
import { layTapeline } from './tapeline.ts'

const SHARDS = [1, 2, 3]
const PARTITIONS = '12'
const MESSAGES_A_SECOND = 2000

/**
 * Sends the same number of messages to Kafka through one, two and three ingestion services that
 * share the symbols.
 */
export async function shardIngestion(
  place: Place,
  options: BenchOptions,
  signal: AbortSignal,
): Promise<Record<string, Figures>> {
  const figures: Record<string, Figures> = {}
  for (const shards of SHARDS) {
    const figure = await ingestWith(place, options, shards, signal)
    figures[shards === 1 ? 'ingestion alone' : `ingestion in ${shards} shards`] = figure
  }
  return figures
}

async function ingestWith(
  place: Place,
  { messages: wanted, symbols, settings }: BenchOptions,
  shards: number,
  signal: AbortSignal,
): Promise<Figures> {
  const messages = Math.floor(wanted / shards) * shards
  const pipeline = await layTapeline(place, symbols, { ...settings, KAFKA_PARTITIONS: PARTITIONS })
  const running: Measured[] = []
  try {
    for (let i = 0; i < shards; i++) running.push(await pipeline.startIngestion({ SHARD: `${i}/${shards}` }))
    const sampler = new Sampler({
      broker: place.brokerPid,
      ...Object.fromEntries(running.map(({ pid }, i) => [`shard ${i}`, pid])),
    })
    const before = sampler.now()
    const { startedUs } = await place.feeder.feedShards(messages, shards)
    const all = async () => {
      signal.throwIfAborted()
      return (await produced(place, pipeline)) >= messages
    }
    await until('all messages to be in Kafka', all, (messages / MESSAGES_A_SECOND) * 1000, 20)
    const seconds = Date.now() / 1000 - startedUs / 1e6
    const after = sampler.now()
    sampler.stop()
    const used = (name: string) => (after[name]?.cpuSeconds ?? 0) - (before[name]?.cpuSeconds ?? 0)
    const ofShards = running.reduce((sum, _, i) => sum + used(`shard ${i}`), 0)
    return {
      'messages/s': messages / seconds,
      'ingestion µs': (ofShards * 1e6) / messages,
      'broker µs': (used('broker') * 1e6) / messages,
    }
  } catch (error) {
    const said = running.map((one) => one.output().slice(-3000)).join('\n')
    throw new Error(`The shards did not deliver everything; their output:\n${said}`, { cause: error })
  } finally {
    for (const one of running) await one.stop()
    await pipeline.remove()
  }
}
