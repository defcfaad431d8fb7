import { type NeededRights, requireAccess } from '../foundation/kafka/access.ts'
import { retry, unlessAborted } from '../foundation/runtime/backoff.ts'
import { describeError, isTapelineError } from '../foundation/runtime/errors.ts'
import type { ServicePorts } from '../foundation/telemetry/service.ts'
import type { ConsumerConfig } from './config.ts'

/** The rights that the consumer needs on its topics and its group. */
export function neededRights({
  topics,
  groupId,
  archivedDaysTopic,
}: Pick<ConsumerConfig, 'topics' | 'groupId' | 'archivedDaysTopic'>): NeededRights {
  return {
    topics: new Map([
      [topics.trades, ['READ']],
      [topics.bookTicker, ['READ']],
      [topics.gaps, ['READ', 'WRITE']],
      [topics.checkpoints, ['READ']],
      [topics.deadLetters, ['READ', 'WRITE']],
      ...(archivedDaysTopic === null ? [] : [[archivedDaysTopic, ['READ']] as const]),
    ]),
    group: groupId,
  }
}

/**
 * Waits until the broker is available and grants the needed rights.
 *
 * @throws TapelineError `ACCESS` when an operator must grant rights; the signal's reason when it
 *   aborts
 */
export async function awaitKafkaAccess(
  config: ConsumerConfig,
  ports: ServicePorts,
  signal: AbortSignal,
): Promise<void> {
  const ask = () =>
    unlessAborted(requireAccess(config.kafka, 'tapeline-consumer', neededRights(config)), signal)
  const warn = (error: unknown) => {
    if (isTapelineError(error) && error.code !== 'KAFKA') throw error
    const details = isTapelineError(error) ? { fix: error.fix } : { err: error }
    ports.log.warn(details, `Kafka cannot be used yet, retrying: ${describeError(error)}`)
  }
  await retry(ask, warn, config.backoff, ports, signal)
}
