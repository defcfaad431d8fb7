import type { Style } from './text-style.ts'

const FRAMES = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏']

interface Step {
  readonly name: string
  readonly startedMs: number
  text: string
  endedMs: number | null
  outcome: 'running' | 'done' | 'failed' | 'interrupted'
}

/** The steps of a start, several at once: what each is doing, and how long it took. Pure: time comes from outside. */
export class Steps {
  readonly #steps: Step[] = []
  readonly #onLine: (line: string) => void

  /** @param onLine told each change in words, for where nothing can be drawn over itself */
  constructor(onLine: (line: string) => void) {
    this.#onLine = onLine
  }

  /** Begins a step, or says what it is doing now. What differs only in its numbers is not told again in words. */
  progress(name: string, text: string, nowMs: number): void {
    const step = this.#steps.find((one) => one.name === name && one.outcome === 'running')
    const withoutCount = (of: string) => of.replace(/:.*$/s, '')
    if (step === undefined)
      this.#steps.push({ name, startedMs: nowMs, text, endedMs: null, outcome: 'running' })
    if (step === undefined || withoutCount(step.text) !== withoutCount(text)) this.#onLine(`${name}: ${text}`)
    if (step !== undefined) step.text = text
  }

  done(name: string, text: string, nowMs: number): void {
    this.#end(name, 'done', text, nowMs)
  }

  failed(name: string, nowMs: number): void {
    this.#end(name, 'failed', 'failed', nowMs)
  }

  /** What is still under way will not come to its end. */
  interrupt(nowMs: number): void {
    for (const step of this.#steps) {
      if (step.outcome !== 'running') continue
      step.outcome = 'interrupted'
      step.endedMs = nowMs
    }
  }

  lines(nowMs: number, style: Style): string[] {
    const frame = FRAMES[Math.floor(nowMs / 100) % FRAMES.length] ?? ''
    return this.#steps.map(({ name, text, startedMs, endedMs, outcome }) => {
      const marks = {
        running: style.warn(frame),
        done: style.good('✓'),
        failed: style.bad('✗'),
        interrupted: '–',
      }
      const seconds = `${(((endedMs ?? nowMs) - startedMs) / 1000).toFixed(1)} s`
      return `  ${marks[outcome]} ${name.padEnd(10)} ${text} ${style.dim(seconds)}`
    })
  }

  #end(name: string, outcome: 'done' | 'failed', text: string, nowMs: number): void {
    const step = this.#steps.find((one) => one.name === name && one.outcome === 'running')
    if (step === undefined) return
    step.outcome = outcome
    step.text = text
    step.endedMs = nowMs
    this.#onLine(`${name}: ${text} (${((nowMs - step.startedMs) / 1000).toFixed(1)} s)`)
  }
}
