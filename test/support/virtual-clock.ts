import TinyQueue from 'tinyqueue'
import type { Clock } from '../../src/foundation/runtime/clock.ts'

interface Entry {
  readonly atMs: number
  /** Order of the scheduling call: equal times run in this order. */
  readonly order: number
  /** Null after cancellation. */
  run: (() => void) | null
}

/** A shorter wait could be lost in rounding, and a loop of such waits would never advance time. */
const LEAST_WAIT_MS = 0.001

/** Steps prepared at once: a turn of the event loop costs as much as a step. */
const STEPS_A_TURN = 64

/** A clock that advances only on request; timers run in the order of their times. */
export class VirtualClock implements Clock {
  #nowMs = 0
  #orders = 0
  readonly #due = new TinyQueue<Entry>([], (one, other) => one.atMs - other.atMs || one.order - other.order)
  readonly #epochMs: number

  constructor(epochMs = Date.UTC(2026, 0, 1)) {
    this.#epochMs = epochMs
  }

  monotonicMs(): number {
    return this.#nowMs
  }

  wallMicros(): number {
    return Math.floor((this.#epochMs + this.#nowMs) * 1000)
  }

  schedule(delayMs: number, run: () => void): () => void {
    const waitMs = delayMs > 0 ? Math.max(LEAST_WAIT_MS, delayMs) : 0
    const entry: Entry = { atMs: this.#nowMs + waitMs, order: this.#orders++, run }
    this.#due.push(entry)
    return () => {
      entry.run = null
    }
  }

  /** Advances the time, and lets promises settle after each timer. Rejects with a timer's error. */
  advance(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms
    return new Promise((resolve, reject) => {
      let ended = false
      const end = () => {
        ended = true
        this.#nowMs = untilMs
        resolve()
      }
      const step = () => {
        if (ended) return
        while (this.#due.peek()?.run === null) this.#due.pop()
        const next = this.#due.peek()
        if (next === undefined || next.atMs > untilMs) return end()
        this.#due.pop()
        this.#nowMs = next.atMs
        try {
          next.run?.()
        } catch (error) {
          ended = true
          reject(error)
        }
      }
      // Node lets promises settle between two immediates of one turn.
      const turn = () => {
        if (ended) return
        for (let i = 0; i < STEPS_A_TURN; i++) setImmediate(step)
        setImmediate(turn)
      }
      setImmediate(turn)
    })
  }
}

/** Lets every settleable promise settle. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
