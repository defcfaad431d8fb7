import { TapelineError } from '../../foundation/runtime/errors.ts'
import { parseSymbols } from './market/instruments.ts'

/** Reads command-line options and gathers what is wrong with them, so that one error names all. */
export class OptionChecks {
  readonly #wrong: string[] = []

  /** The number an option means; what is returned for a wrong one is never used, since `throwIfWrong` throws. */
  number(
    option: string,
    text: string,
    expected: { min: number; max: number; whole: boolean; or?: string },
  ): number {
    const { min, max, whole, or } = expected
    const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : Number.NaN
    if (!(value >= min && value <= max) || (whole && !Number.isInteger(value))) {
      const kind = whole ? 'a whole number' : 'a number'
      const other = or === undefined ? '' : ` or "${or}"`
      this.#wrong.push(`${option}: expected ${kind} from ${min} to ${max}${other}, got "${text}"`)
    }
    return value
  }

  /** The symbols of a comma-separated list, upper-case, without doubles. */
  symbols(option: string, text: string): readonly string[] {
    const names = text.split(',').filter((name) => name.trim() !== '')
    const { symbols, wrong } = parseSymbols(names)
    if (symbols.length === 0 || wrong.length > 0) {
      this.#wrong.push(`${option}: expected symbols such as BTCUSDT,ETHUSDT, got "${text}"`)
    }
    return symbols
  }

  /** @throws {TapelineError} `INPUT` naming each wrong option, its value and what is expected */
  throwIfWrong(command: string): void {
    if (this.#wrong.length === 0) return
    throw new TapelineError('INPUT', `${this.#wrong.join('; ')}.`, {
      fix: `See \`bin/tapeline ${command} --help\`.`,
    })
  }
}
