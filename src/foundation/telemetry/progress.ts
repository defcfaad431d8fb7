import type { WriteStream } from 'node:tty'
import { drawOn } from './terminal.ts'

const DRAW_EVERY_MS = 100
/** Elsewhere a line is written so often. */
const LINE_EVERY_MS = 10_000
const BAR = 24

/**
 * Shows how far a long command is: a bar on a terminal, a line every ten seconds elsewhere. It uses
 * standard error, so that the command's output stays clean.
 */
export class Progress {
  readonly #stream: Pick<WriteStream, 'write'> & { readonly isTTY?: boolean }
  readonly #monotonicMs: () => number
  #shownMs: number
  #isDrawn = false

  constructor(
    stream: Pick<WriteStream, 'write'> & { readonly isTTY?: boolean } = process.stderr,
    monotonicMs: () => number = () => performance.now(),
  ) {
    this.#stream = stream
    this.#monotonicMs = monotonicMs
    // The first line comes after ten seconds: a short command needs none.
    this.#shownMs = stream.isTTY === true ? Number.NEGATIVE_INFINITY : monotonicMs()
  }

  /**
   * @param share from 0 to 1; null if unknown
   * @param text what is done, for example `reading FILE, 1,234 rows`
   */
  show(share: number | null, text: () => string): void {
    const nowMs = this.#monotonicMs()
    const isTerminal = this.#stream.isTTY === true
    if (nowMs - this.#shownMs < (isTerminal ? DRAW_EVERY_MS : LINE_EVERY_MS)) return
    this.#shownMs = nowMs
    const percent = share === null ? '' : `${String(Math.floor(Math.min(1, share) * 100)).padStart(3)} % `
    if (!isTerminal) {
      this.#stream.write(`${percent}${text()}\n`)
      return
    }
    this.#isDrawn = true
    drawOn(this.#stream, `\r${share === null ? '' : bar(share)}${percent}${text()}\u001b[K`)
  }

  /** Removes the bar, before other output. */
  clear(): void {
    if (this.#isDrawn) drawOn(this.#stream, '\r\u001b[K')
    this.#isDrawn = false
  }
}

function bar(share: number): string {
  const full = Math.round(Math.min(1, share) * BAR)
  return `[${'#'.repeat(full)}${'.'.repeat(BAR - full)}] `
}
