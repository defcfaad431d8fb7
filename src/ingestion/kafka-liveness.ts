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

type LivenessPorts = Pick<Ports, 'clock'> & { readonly kafka: Pick<KafkaPort, 'fetcher'> }

/**
 * Decides whether a restart of this process could help: Kafka acknowledged nothing for 5 minutes
 * although a new client has reached every leader for a minute. Otherwise it would only lose the
 * queue.
 */
export class KafkaLiveness {
  readonly #ports: LivenessPorts
  readonly #topics: readonly string[]
  readonly #sent: Pick<KafkaProducer, 'batches' | 'oldestUnacknowledgedMs'>
  readonly #log: Logger
  #reachedAtMs = Number.NEGATIVE_INFINITY
  /** Since when every check with a new client has reached every leader. */
  #reachedSinceMs = Number.POSITIVE_INFINITY

  constructor(
    ports: LivenessPorts,
    topics: readonly string[],
    sent: Pick<KafkaProducer, 'batches' | 'oldestUnacknowledgedMs'>,
    log: Logger,
  ) {
    this.#ports = ports
    this.#topics = topics
    this.#sent = sent
    this.#log = log
  }

  /** The reason for a restart; empty while the process counts as alive. */
  reason(): string {
    const nowMs = this.#ports.clock.monotonicMs()
    const isReached =
      nowMs - this.#reachedAtMs <= REACHED_MS && nowMs - this.#reachedSinceMs >= REACHED_FOR_MS
    if (!isReached || !this.#isStuck(nowMs, STUCK_MS)) return ''
    return 'Kafka has acknowledged nothing for 5 minutes, although a new client can reach all leaders'
  }

  /** Checks Kafka with a new client whenever messages are stuck, until the signal aborts. */
  async watch(signal: AbortSignal): Promise<void> {
    const { clock } = this.#ports
    while (!signal.aborted) {
      if (this.#isStuck(clock.monotonicMs(), STUCK_MS - REACHED_FOR_MS)) await this.#probe()
      else this.#reachedSinceMs = Number.POSITIVE_INFINITY
      await sleep(PROBE_EVERY_MS, signal, clock).catch(() => {})
    }
  }

  #isStuck(nowMs: number, limitMs: number): boolean {
    const { acknowledgedAtMs, held, lackedReplicasAtMs } = this.#sent.batches
    return (
      !held.isAnyRefused &&
      nowMs - lackedReplicasAtMs >= LACKING_MS &&
      this.#sent.oldestUnacknowledgedMs(nowMs) >= limitMs &&
      nowMs - acknowledgedAtMs >= limitMs
    )
  }

  async #probe(): Promise<void> {
    const fetcher = this.#ports.kafka.fetcher('tapeline-ingestion-liveness', this.#topics)
    try {
      await fetcher.connect()
      await fetcher.offsetRanges()
      this.#reachedAtMs = this.#ports.clock.monotonicMs()
      this.#reachedSinceMs = Math.min(this.#reachedSinceMs, this.#reachedAtMs)
    } catch (error) {
      this.#reachedSinceMs = Number.POSITIVE_INFINITY
      this.#log.debug({ err: error }, `A new client cannot reach Kafka: ${describeError(error)}`)
    } finally {
      await fetcher.close()
    }
  }
}
