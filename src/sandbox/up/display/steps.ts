import type { Style } from './text-style.ts'

const FRAMES = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏']

interface Step {
  readonly name: string
  readonly startedMs: number
  text: string
  endedMs: number | null
  outcome: 'running' | 'done' | 'failed' | 'interrupted'
}

/** The steps of a start, several at once: their progress and duration. */
export class Steps {
  readonly #steps: Step[] = []
  readonly #onLine: (line: string) => void

  /** @param onLine called with each change as a line, for output that cannot be redrawn */
  constructor(onLine: (line: string) => void) {
    this.#onLine = onLine
  }

  /** Begins a step, or updates its text. A change of only the numbers is not reported as a line. */
  progress(name: string, text: string, nowMs: number): void {
    const step = this.#running(name)
    const withoutCount = (of: string) => of.replace(/:.*$/s, '')
    if (step === undefined)
      this.#steps.push({ name, startedMs: nowMs, text, endedMs: null, outcome: 'running' })
    if (step === undefined || withoutCount(step.text) !== withoutCount(text)) this.#onLine(`${name}: ${text}`)
    if (step !== undefined) step.text = text
  }

  end(name: string, outcome: 'done' | 'failed', text: string, nowMs: number): void {
    const step = this.#running(name)
    if (step === undefined) return
    step.outcome = outcome
    step.text = text
    step.endedMs = nowMs
    this.#onLine(`${name}: ${text} (${((nowMs - step.startedMs) / 1000).toFixed(1)} s)`)
  }

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

  #running(name: string): Step | undefined {
    return this.#steps.find((step) => step.name === name && step.outcome === 'running')
  }
}
