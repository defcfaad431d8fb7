/**
 * Preloaded (`node --import`) into a service under chaos. It shifts the wall clock by the
 * milliseconds in a file; `performance.now()` and timers stay right. It also measures the heap at
 * regular intervals, after a garbage collection. `probe.ts` writes and reads the files.
 */
import { appendFileSync, openSync, readSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { threadId } from 'node:worker_threads'

/** The file is read again after this time: soon enough, but not at every call. */
const LOOK_EVERY_MS = 10
const LONGEST_TEXT = 32

const {
  CHAOS_CLOCK_FILE: clockFile,
  CHAOS_HEAP_FILE: heapFile,
  CHAOS_HEAP_EVERY_MS: heapEveryMs,
} = process.env
if (clockFile !== undefined) shiftClock(clockFile)
if (heapFile !== undefined) measureHeap(heapFile, Number(heapEveryMs))

function shiftClock(file: string): void {
  const RealDate = Date
  const now = Date.now.bind(Date)
  const descriptor = openSync(file, 'r')
  const text = Buffer.alloc(LONGEST_TEXT)
  let offsetMs = 0
  let lookedMs = Number.NEGATIVE_INFINITY
  const shifted = () => {
    const nowMs = performance.now()
    if (nowMs - lookedMs >= LOOK_EVERY_MS) {
      lookedMs = nowMs
      offsetMs = Number(text.toString('latin1', 0, readSync(descriptor, text, 0, LONGEST_TEXT, 0)))
    }
    return now() + offsetMs
  }
  RealDate.now = shifted
  globalThis.Date = new Proxy(RealDate, {
    apply: () => new RealDate(shifted()).toString(),
    construct: (target, args, newTarget) =>
      Reflect.construct(target, args.length === 0 ? [shifted()] : args, newTarget),
  })
}

function measureHeap(file: string, everyMs: number): void {
  setFlagsFromString('--expose-gc')
  const collect: unknown = runInNewContext('gc')
  setInterval(() => {
    if (typeof collect === 'function') collect()
    appendFileSync(
      file,
      `${process.pid} ${threadId} ${Math.round(performance.timeOrigin + performance.now())} ${process.memoryUsage().heapUsed}\n`,
    )
  }, everyMs).unref()
}
