import type { SimulatedExchangeOptions } from '../../src/sandbox/simulator/simulated-exchange.ts'
import { type ConsumerParts, createConsumerParts } from './consumer-parts.ts'
import { type IngestionParts, withExchange } from './ingestion-parts.ts'

/** Topics, database and simulated exchange of one test, with the settings of both services. */
export type PipelineParts = ConsumerParts & IngestionParts

export async function createPipelineParts(options: SimulatedExchangeOptions = {}): Promise<PipelineParts> {
  const parts = await createConsumerParts()
  return {
    ...parts,
    ...(await withExchange(parts.topics, parts.env, options, () => parts[Symbol.asyncDispose]())),
  }
}
