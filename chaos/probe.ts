import { closeSync, constants, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { ThreadSample } from './slopes.ts'

/** The module that is preloaded into a service. */
const PRELOADED = new URL('./preloaded.ts', import.meta.url).href
/** As `bin/tapeline` has it. */
const USUAL_OPTIONS = '--max-semi-space-size=8 --v8-pool-size=1'
const HEAP_EVERY_MS = 10_000
/** Longer than any number that is written, so that one never leaves digits of another. */
const WIDTH = 24

/** Acts inside the processes of one service: their wall clock, and measurements of their heap. */
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

  /** Environment of the processes that it is to be in. */
  environment(): Record<string, string> {
    return {
      NODE_OPTIONS: `${USUAL_OPTIONS} --import=${PRELOADED}`,
      CHAOS_CLOCK_FILE: this.#clockFile,
      ...(this.#measuresHeap
        ? { CHAOS_HEAP_FILE: this.#heapFile, CHAOS_HEAP_EVERY_MS: String(this.#heapEveryMs) }
        : {}),
    }
  }

  /** From now on the wall clock of its processes is so many milliseconds ahead of this machine's; negative: late. */
  setClock(offsetMs: number): void {
    const descriptor = openSync(this.#clockFile, constants.O_WRONLY | constants.O_CREAT)
    try {
      writeSync(descriptor, String(offsetMs).padEnd(WIDTH), 0)
    } finally {
      closeSync(descriptor)
    }
  }

  /** The heap of each of its threads after each collection so far. */
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
