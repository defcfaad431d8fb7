import type { SimulatedExchangeOptions } from '../../src/sandbox/simulator/simulated-exchange.ts'
import { createConsumerParts } from './consumer-parts.ts'
import { withExchange } from './ingestion-parts.ts'

export type PipelineParts = Awaited<ReturnType<typeof createPipelineParts>>

/** Topics, database and simulated exchange of one test, with the settings of both services. */
export async function createPipelineParts(options: SimulatedExchangeOptions = {}) {
  const parts = await createConsumerParts()
  const dispose = () => parts[Symbol.asyncDispose]()
  return { ...parts, ...(await withExchange(parts.topics, parts.env, options, dispose)) }
}
