import { closeSync, constants, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { NODE_ENVIRONMENT } from '../src/foundation/runtime/node-flags.ts'
import type { ThreadSample } from './slopes.ts'

/** The module that is preloaded into a service. */
const PRELOADED = new URL('./preloaded.ts', import.meta.url).href
const HEAP_EVERY_MS = 10_000
/** Longer than any written number, so that a shorter one leaves no digits of it. */
const WIDTH = 24

/** Acts inside the processes of one service: shifts their wall clock and measures their heap. */
export class Probe {
  readonly #clockFile: string
  readonly #heapFile: string
  readonly #measuresHeap: boolean
  readonly #heapEveryMs: number

  constructor(folder: string, name: string, measuresHeap: boolean, heapEveryMs: number = HEAP_EVERY_MS) {
    this.#clockFile = join(folder, `${name}.clock`)
    this.#heapFile = join(folder, `${name}.heap`)
    this.#measuresHeap = measuresHeap
    this.#heapEveryMs = heapEveryMs
    this.setClock(0)
    writeFileSync(this.#heapFile, '')
  }

  /** Environment variables for the service's processes. */
  environment(): Record<string, string> {
    return {
      NODE_OPTIONS: `${NODE_ENVIRONMENT.NODE_OPTIONS} --import=${PRELOADED}`,
      CHAOS_CLOCK_FILE: this.#clockFile,
      ...(this.#measuresHeap
        ? { CHAOS_HEAP_FILE: this.#heapFile, CHAOS_HEAP_EVERY_MS: String(this.#heapEveryMs) }
        : {}),
    }
  }

  /** Shifts the wall clock of the processes by this many milliseconds; negative: back. */
  setClock(offsetMs: number): void {
    const descriptor = openSync(this.#clockFile, constants.O_WRONLY | constants.O_CREAT)
    try {
      writeSync(descriptor, String(offsetMs).padEnd(WIDTH), 0)
    } finally {
      closeSync(descriptor)
    }
  }

  /** Measurements of the heap of each thread so far, each after a garbage collection. */
  heap(): ThreadSample[] {
    return readFileSync(this.#heapFile, 'utf8')
      .split('\n')
      .slice(0, -1)
      .map((line) => {
        const [pid = 0, thread = 0, atMs = 0, bytes = 0] = line.split(' ').map(Number)
        return { pid, thread, atMs, bytes }
      })
  }
}
