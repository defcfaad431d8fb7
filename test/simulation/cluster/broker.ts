import type { Leadership } from './partition.ts'

/**
 * - `up`: healthy.
 * - `down`: refuses connections.
 * - `hung`: accepts requests without answering (SIGSTOP); processes them when it continues.
 * - `cut off`: answers clients, but neither reaches other brokers nor is reached by them.
 */
export type BrokerState = 'up' | 'down' | 'hung' | 'cut off'

/** A broker, without its logs. */
export class Broker {
  readonly node: number
  readonly host: string
  readonly port = 9092
  state: BrokerState = 'up'
  /** Its view of the partitions, by name. */
  view: ReadonlyMap<string, Leadership> = new Map()
  /** Offset of its clock. */
  clockOffsetMs = 0
  /** How many of the next requests get no answer. */
  lostAnswers = 0
  /** Whether the controller considers it dead. */
  isFenced = false
  /** Counts state changes, so that actions planned for an earlier state are dropped. */
  changes = 0
  /** Requests received while it hung, oldest first. */
  #inbox: Array<() => void> = []
  readonly #onDown = new Set<() => void>()

  constructor(node: number) {
    this.node = node
    this.host = `broker-${node}`
  }

  /** Whether it reaches the other brokers and the controller. */
  get isReachable(): boolean {
    return this.state === 'up'
  }

  change(state: BrokerState): void {
    this.changes++
    this.state = state
    if (state === 'down') {
      this.#inbox = []
      for (const fail of [...this.#onDown]) fail()
    }
    if (state === 'up') for (const work of this.#inbox.splice(0)) work()
  }

  /** Runs now, or when it continues. */
  take(work: () => void): void {
    if (this.state === 'hung') this.#inbox.push(work)
    else work()
  }

  /** Calls `fail` when it goes down, unless the returned function was called before. */
  whileUp(fail: () => void): () => void {
    this.#onDown.add(fail)
    return () => this.#onDown.delete(fail)
  }
}
