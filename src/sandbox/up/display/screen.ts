import type { WriteStream } from 'node:tty'
import { stripVTControlCharacters } from 'node:util'
import { drawOn, terminalText } from '../../../foundation/telemetry/terminal.ts'
import { clip } from './text-style.ts'

const HIDE_CURSOR = '\x1b[?25l'
const SHOW_CURSOR = '\x1b[?25h'
const ERASE_TO_LINE_END = '\x1b[K'
const ERASE_BELOW = '\x1b[J'

/** The target of a block: a terminal, or a substitute. */
export type Canvas = Pick<WriteStream, 'write' | 'columns' | 'rows'>

/** Lines at the end of the output, redrawn in one write without clearing, so nothing flickers. */
export class LiveBlock {
  readonly #canvas: Canvas
  #drawn: string[] = []
  #open = false

  constructor(canvas: Canvas) {
    this.#canvas = canvas
  }

  /** Replaces the block. Lines are cut to the terminal's width, and the block to its height. */
  draw(lines: readonly string[]): void {
    const { columns, rows } = sizeOf(this.#canvas)
    const shown = lines.slice(0, Math.max(1, rows - 1)).map((line) => clip(terminalText(line), columns))
    const body = shown.map((line) => `${line}${ERASE_TO_LINE_END}\n`).join('')
    drawOn(this.#canvas, `${this.#open ? '' : HIDE_CURSOR}${this.#home(columns)}${body}${ERASE_BELOW}`)
    this.#drawn = shown
    this.#open = true
  }

  /** Prints lines above the block that stay visible. */
  print(lines: readonly string[]): void {
    const { columns } = sizeOf(this.#canvas)
    const drawn = this.#drawn
    const text = lines.map((line) => `${terminalText(line)}\n`).join('')
    drawOn(this.#canvas, `${this.#home(columns)}${ERASE_BELOW}${text}`)
    this.#drawn = []
    if (this.#open) this.draw(drawn)
  }

  /** Leaves the block as it is and restores the cursor. */
  end(): void {
    if (this.#open) drawOn(this.#canvas, SHOW_CURSOR)
    this.#open = false
    this.#drawn = []
  }

  clear(): void {
    const { columns } = sizeOf(this.#canvas)
    if (this.#open) drawOn(this.#canvas, `${this.#home(columns)}${ERASE_BELOW}`)
    this.end()
  }

  /** Moves to the first line of the previous drawing, whose lines a narrower terminal has wrapped. */
  #home(columns: number): string {
    const wrapped = this.#drawn.reduce(
      (total, line) => total + Math.max(1, Math.ceil(stripVTControlCharacters(line).length / columns)),
      0,
    )
    const height = Math.min(wrapped, (this.#canvas.rows ?? 24) - 1)
    return height === 0 ? '' : `\x1b[${height}A\r`
  }
}

/** A terminal of unknown size reports 0. */
function sizeOf({ columns, rows }: Canvas): { columns: number; rows: number } {
  return { columns: columns || 80, rows: rows || 24 }
}
