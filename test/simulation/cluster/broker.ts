import type { Leadership } from './partition.ts'

/**
 * - `up`: as it should be.
 * - `down`: connections are refused.
 * - `hung`: takes requests and does not answer (SIGSTOP); works them off when it continues.
 * - `cut off`: answers clients; no other broker hears of it, nor it of them.
 */
export type BrokerState = 'up' | 'down' | 'hung' | 'cut off'

/** A broker, as far as it is more than its logs. */
export class Broker {
  readonly node: number
  readonly host: string
  readonly port = 9092
  state: BrokerState = 'up'
  /** What it believes of the partitions, by name. */
  view: ReadonlyMap<string, Leadership> = new Map()
  /** Its clock against the right one. */
  clockOffsetMs = 0
  /** How many of the next requests get no answer. */
  lostAnswers = 0
  /** The controller takes it for dead. */
  isFenced = false
  /** Counts changes of the state, so that what was planned for an earlier one is dropped. */
  changes = 0
  /** What came while it was hung, oldest first. */
  #inbox: Array<() => void> = []
  readonly #onDown = new Set<() => void>()

  constructor(node: number) {
    this.node = node
    this.host = `broker-${node}`
  }

  /** The other brokers, and the controller. */
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

  /** Now, or when it continues. */
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
