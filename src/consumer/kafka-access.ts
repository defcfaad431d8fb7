import { type NeededRights, requireAccess } from '../foundation/kafka/access.ts'
import { delayFor, sleep, unlessAborted } from '../foundation/runtime/backoff.ts'
import type { Clock } from '../foundation/runtime/clock.ts'
import { describeError, isTapelineError } from '../foundation/runtime/errors.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { ConsumerConfig } from './config.ts'

/** What the parts that retry need from outside. */
export interface StartPorts {
  readonly clock: Clock
  /** In [0, 1). */
  readonly random: () => number
  readonly log: Logger
}

/** The rights that the consumer needs on its topics and its group. */
export function neededRights({ topics, groupId }: Pick<ConsumerConfig, 'topics' | 'groupId'>): NeededRights {
  return {
    topics: new Map([
      [topics.trades, ['READ']],
      [topics.bookTicker, ['READ']],
      [topics.gaps, ['READ', 'WRITE']],
      [topics.checkpoints, ['READ']],
      [topics.deadLetters, ['READ', 'WRITE']],
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
  { clock, random, log }: StartPorts,
  signal: AbortSignal,
): Promise<void> {
  for (let failures = 1; ; failures++) {
    try {
      await unlessAborted(requireAccess(config.kafka, 'tapeline-consumer', neededRights(config)), signal)
      return
    } catch (error) {
      signal.throwIfAborted()
      if (isTapelineError(error) && error.code !== 'KAFKA') throw error
      const details = isTapelineError(error) ? { fix: error.fix } : { err: error }
      log.warn(details, `Kafka cannot be used yet, retrying: ${describeError(error)}`)
      await sleep(delayFor(failures, config.backoff, random()), signal, clock)
    }
  }
}
