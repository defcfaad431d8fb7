import type { Clock } from '../runtime/clock.ts'
import type { KafkaConnection } from './config.ts'

/** A broker that does not answer within this time hangs. */
export const REQUEST_MS = 8000

const CLOSE_MS = 1000

type Reject = (reason: Error) => void

/**
 * The connections of a producer or reader. Every request has a limit. After a failure, the next
 * request uses new connections, which begin with another bootstrap broker, since one may hang.
 * Running requests keep theirs: a broker that fails must not interrupt the others.
 */
export class BrokerConnections<Requests extends { close(): Promise<void> }> {
  readonly #clock: Clock
  readonly #connection: KafkaConnection
  readonly #open: (connection: KafkaConnection) => Requests
  /** Running requests of current and former connections, each by what rejects it. */
  readonly #running = new Map<Requests, Set<Reject>>()
  #current: Requests
  #connects = 0
  readonly #closing = new AbortController()

  constructor(clock: Clock, connection: KafkaConnection, open: (connection: KafkaConnection) => Requests) {
    this.#clock = clock
    this.#connection = connection
    this.#open = open
    this.#current = open(connection)
  }

  /** Aborts when this is closed. */
  get closing(): AbortSignal {
    return this.#closing.signal
  }

  /** How often {@link reconnect} had an effect. */
  get connects(): number {
    return this.#connects
  }

  /**
   * Drops the connections.
   *
   * @param failed the value of {@link connects} when the failed request was sent: others may have
   *   reconnected since
   */
  reconnect(failed: number): void {
    if (this.closing.aborted || failed !== this.#connects) return
    const left = this.#current
    const { brokers } = this.#connection
    const first = ++this.#connects % Math.max(1, brokers.length)
    const rotated = [...brokers.slice(first), ...brokers.slice(0, first)]
    this.#current = this.#open({ ...this.#connection, brokers: rotated })
    if (!this.#running.has(left)) void this.#closeWithin(left)
  }

  /**
   * Returns the outcome of a request; rejects after the limit or when this is closed.
   *
   * @param checkLate called after each {@link REQUEST_MS} before the limit; an error ends the wait
   */
  async ask<Result>(
    request: (requests: Requests) => Promise<Result>,
    limitMs = REQUEST_MS,
    checkLate?: () => Promise<Error | undefined>,
  ): Promise<Result> {
    this.closing.throwIfAborted()
    const requests = this.#current
    const running = this.#running.get(requests) ?? new Set()
    const { promise: ended, reject } = Promise.withResolvers<never>()
    this.#running.set(requests, running.add(reject))
    let cancel = () => {}
    const wait = (leftMs: number) => {
      cancel = this.#clock.schedule(Math.min(leftMs, REQUEST_MS), () => {
        if (leftMs <= REQUEST_MS) return reject(new LateAnswer(limitMs))
        void checkLate?.().then((why) => why && reject(why))
        wait(leftMs - REQUEST_MS)
      })
    }
    wait(limitMs)
    try {
      return await Promise.race([request(requests), ended])
    } finally {
      cancel()
      running.delete(reject)
      if (running.size === 0) {
        this.#running.delete(requests)
        if (requests !== this.#current && !this.closing.aborted) void this.#closeWithin(requests)
      }
    }
  }

  /** Like {@link ask}; a request that fails drops the connections. */
  async askOrReconnect<Result>(
    request: (requests: Requests) => Promise<Result>,
    limitMs?: number,
  ): Promise<Result> {
    const connects = this.#connects
    return this.ask(request, limitMs).catch((error: unknown) => {
      this.reconnect(connects)
      throw error
    })
  }

  /** Rejects the running requests with the reason. */
  async close(reason: Error): Promise<void> {
    this.#closing.abort(reason)
    const open = new Set([this.#current, ...this.#running.keys()])
    for (const running of this.#running.values()) for (const reject of running) reject(reason)
    await Promise.all([...open].map((requests) => this.#closeWithin(requests)))
  }

  /** Closes within a limit: a connection may never report that it is closed. */
  async #closeWithin(requests: Requests): Promise<void> {
    const late = new Promise<void>((resolve) => this.#clock.schedule(CLOSE_MS, resolve))
    // Errors while closing do not matter.
    await Promise.race([requests.close().catch(() => {}), late])
  }
}

/** No answer within the limit of a request. */
export class LateAnswer extends Error {
  constructor(limitMs: number) {
    super(`Kafka has not answered within ${limitMs / 1000} s`)
  }
}
