import type { KafkaPort } from '../foundation/kafka/kafka-port.ts'
import { sleep } from '../foundation/runtime/backoff.ts'
import { describeError } from '../foundation/runtime/errors.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { KafkaProducer } from './kafka-producer.ts'
import type { Ports } from './ports.ts'

/** So long without an acknowledgement, while Kafka is reachable, is a fault of this process. */
const STUCK_MS = 5 * 60_000

/** Kafka counts as reached if a new client reached every leader within this time, */
const REACHED_MS = 30_000
/** and since this time: a Kafka that has just returned needs time to acknowledge. */
const REACHED_FOR_MS = 60_000

const PROBE_EVERY_MS = 10_000

/** For so long, missing replicas explain the lack of acknowledgements. */
const LACKING_MS = 60_000

/** Decides whether a restart of this process could help; otherwise it would only lose the queue. */
export interface KafkaLiveness {
  /** The reason for a restart; empty while the process counts as alive. */
  reason(): string
  /** Checks Kafka with a new client whenever messages are stuck, until the signal aborts. */
  watch(signal: AbortSignal): Promise<void>
}

/** @param topics whose leaders a new client must reach */
export function kafkaLiveness(
  { clock, kafka }: Pick<Ports, 'clock'> & { readonly kafka: Pick<KafkaPort, 'fetcher'> },
  topics: readonly string[],
  sent: Pick<KafkaProducer, 'batches' | 'oldestUnacknowledgedMs'>,
  log: Logger,
): KafkaLiveness {
  let reachedAtMs = Number.NEGATIVE_INFINITY
  /** Since when every check with a new client has reached every leader. */
  let reachedSinceMs = Number.POSITIVE_INFINITY
  const isStuck = (nowMs: number, limitMs: number): boolean => {
    const { acknowledgedAtMs, held, lackedReplicasAtMs } = sent.batches
    return (
      !held.isAnyRefused &&
      nowMs - lackedReplicasAtMs >= LACKING_MS &&
      sent.oldestUnacknowledgedMs(nowMs) >= limitMs &&
      nowMs - acknowledgedAtMs >= limitMs
    )
  }
  const probe = async (): Promise<void> => {
    const fetcher = kafka.fetcher('tapeline-ingestion-liveness', topics)
    try {
      await fetcher.connect()
      await fetcher.offsetRanges()
      reachedAtMs = clock.monotonicMs()
      reachedSinceMs = Math.min(reachedSinceMs, reachedAtMs)
    } catch (error) {
      reachedSinceMs = Number.POSITIVE_INFINITY
      log.debug({ err: error }, `A new client cannot reach Kafka: ${describeError(error)}`)
    } finally {
      await fetcher.close()
    }
  }
  return {
    reason() {
      const nowMs = clock.monotonicMs()
      const isReached = nowMs - reachedAtMs <= REACHED_MS && nowMs - reachedSinceMs >= REACHED_FOR_MS
      if (!isReached || !isStuck(nowMs, STUCK_MS)) return ''
      return 'Kafka has acknowledged nothing for 5 minutes, although a new client can reach all leaders'
    },
    async watch(signal) {
      while (!signal.aborted) {
        if (isStuck(clock.monotonicMs(), STUCK_MS - REACHED_FOR_MS)) await probe()
        else reachedSinceMs = Number.POSITIVE_INFINITY
        await sleep(PROBE_EVERY_MS, signal, clock).catch(() => {})
      }
    },
  }
}
