/**
 * Preloaded (`node --import`) into a service under chaos. The wall clock is off by as many milliseconds as a file says;
 * `performance.now()` and timers stay. At a steady pace the heap is measured after a garbage collection. `probe.ts` writes
 * and reads the files.
 */
import { appendFileSync, openSync, readSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { threadId } from 'node:worker_threads'

/** The file is read at the first look at the clock after this time: soon, and not millions of times a second. */
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
