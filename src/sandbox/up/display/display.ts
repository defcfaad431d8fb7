import type { WriteStream } from 'node:tty'
import type { LogProblem } from '../../processes/log-follower.ts'
import { type DisplayState, displayLines, type ProblemView, plainLine } from './display-lines.ts'
import { LiveBlock } from './screen.ts'
import { Steps } from './steps.ts'
import { colourStyle, plainStyle, type Style } from './text-style.ts'

const REDRAW_MS = 100
const PLAIN_LINE_MS = 5000
const KEPT_PROBLEMS = 20
/** The same text from the same part is shown once within this time. */
const REPEAT_MS = 10_000

/** The target of the display: a terminal, a pipe or a file. */
export type Output = Pick<WriteStream, 'write' | 'on' | 'columns' | 'rows'> & { readonly isTTY?: boolean }

/** The output of `up`: on a terminal a block that updates in place, elsewhere plain lines. */
export class Display {
  readonly #output: Output
  readonly #block: LiveBlock | null
  readonly #problems: ProblemView[] = []
  readonly #repeats = new Map<string, number>()
  #steps: Steps
  #stateOf: (() => DisplayState) | null = null
  #timer: NodeJS.Timeout | null = null
  #closed = false
  readonly style: Style

  constructor(output: Output, { colours }: { readonly colours: boolean }) {
    this.#output = output
    this.#block = output.isTTY === true ? new LiveBlock(output) : null
    this.style = this.#block !== null && colours ? colourStyle : plainStyle
    this.#steps = this.#newSteps()
    if (this.#block !== null) this.#timer = setInterval(() => this.#redraw(), REDRAW_MS)
  }

  get problems(): readonly ProblemView[] {
    return this.#problems
  }

  progress(name: string, text: string): void {
    this.#steps.progress(name, text, performance.now())
  }

  ready(name: string, text: string): void {
    this.#steps.end(name, 'done', text, performance.now())
  }

  failed(name: string): void {
    this.#steps.end(name, 'failed', 'failed', performance.now())
  }

  say(...lines: readonly string[]): void {
    if (this.#block === null) this.#output.write(lines.map((line) => `${line}\n`).join(''))
    else this.#block.print(lines)
  }

  problem(from: string, { level, text: what, fix }: LogProblem): void {
    const text = fix === '' ? what : `${what.replace(/\.?$/, '.')} ${fix}`
    const nowMs = performance.now()
    const key = `${from}: ${text}`
    const toldMs = this.#repeats.get(key)
    if (toldMs !== undefined && nowMs - toldMs < REPEAT_MS) return
    if (this.#repeats.size > KEPT_PROBLEMS) this.#repeats.clear()
    this.#repeats.set(key, nowMs)
    this.#problems.push({ time: new Date().toISOString().slice(11, 19), from, level, text })
    if (this.#problems.length > KEPT_PROBLEMS) this.#problems.shift()
    if (this.#block === null || this.#stateOf === null)
      this.say(`${level === 'warn' ? 'warning' : 'error'}: ${key}`)
  }

  /** Shows the pipeline from now on. The steps of the start stay above it. */
  showPipeline(stateOf: () => DisplayState): void {
    this.#leaveSteps()
    this.#stateOf = stateOf
    if (this.#block === null) this.#timer = setInterval(() => this.say(plainLine(stateOf())), PLAIN_LINE_MS)
    else this.say('')
  }

  /** Shows steps again from now on: those of the stop. */
  showSteps(): void {
    if (this.#stateOf !== null) this.#block?.clear()
    else this.#leaveSteps()
    this.#stateOf = null
    if (this.#block === null) this.#stopTimer()
    this.#steps = this.#newSteps()
  }

  /** Leaves the output as it is and restores the cursor. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#stopTimer()
    if (this.#stateOf === null) this.#redraw()
    this.#block?.end()
  }

  #leaveSteps(): void {
    this.#steps.interrupt(performance.now())
    this.#redraw()
    this.#block?.end()
  }

  #redraw(): void {
    if (this.#block === null) return
    const lines =
      this.#stateOf === null
        ? this.#steps.lines(performance.now(), this.style)
        : displayLines(this.#stateOf(), this.style)
    if (lines.length > 0) this.#block.draw(lines)
  }

  #newSteps(): Steps {
    return new Steps((line) => {
      if (this.#block === null) this.say(line)
    })
  }

  #stopTimer(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
    this.#timer = null
  }
}
