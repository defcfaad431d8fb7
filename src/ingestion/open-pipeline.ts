import { randomUUID } from 'node:crypto'
import { InstanceWatch } from './checkpoint/instance-watch.ts'
import { recover } from './checkpoint/recovery.ts'
import { TailEpochs } from './checkpoint/tail-epochs.ts'
import type { IngestionConfig } from './config.ts'
import { Pipeline } from './pipeline.ts'
import type { PipelineContext, RecoveredFields } from './pipeline-context.ts'

/**
 * Recovers the state from the topics and tells older instances over the same symbols to stop,
 * unless this one is stopping.
 */
export async function openPipeline(
  config: IngestionConfig,
  context: Omit<PipelineContext, RecoveredFields>,
  stopping: AbortSignal,
): Promise<Pipeline> {
  const { ports, symbols, log } = context
  const { memory, ends, ...recovered } = await recover(ports.kafka, config.topics, [...symbols], log)
  stopping.throwIfAborted()
  const instance = randomUUID()
  let pipeline: Pipeline | null = null
  const { checkpoints, gaps, trades, bookTicker } = config.topics
  const watch = new InstanceWatch(ports.kafka, {
    checkpoints,
    gaps,
    instance,
    symbols,
    ends,
    olderInstances: recovered.instances,
    onForeignGap: (gap) => pipeline?.foreignGaps.ofOlderInstance(gap),
    onRequest: (gap) => pipeline?.foreignGaps.request(gap),
    log,
  })
  const tails = new TailEpochs(ports.kafka, [trades, bookTicker, gaps], ports.clock, log)
  await watch.connect()
  await tails.learnEnds(ends)
  if (stopping.aborted) {
    await Promise.all([watch.close(), tails.close()])
    stopping.throwIfAborted()
  }
  const known = [...memory.symbols].length
  const { recoveredMessages, counters, lostQuotes, rows, isLedgerRecreated, truncations } = recovered
  if (recovered.instances.size > 0 || recoveredMessages > 0)
    log.info({ symbols: known, recoveredMessages }, 'Recovered the state from the topics')
  const fields = { instance, watch, tails, counters, lostQuotes, rows, isLedgerRecreated, truncations }
  pipeline = new Pipeline(config, { ...context, ...fields }, memory)
  return pipeline
}
