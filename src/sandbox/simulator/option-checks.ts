import { TapelineError } from '../../foundation/runtime/errors.ts'
import { SYMBOL } from './market/instruments.ts'

/** Parses command-line options and collects all errors, so that one error names them all. */
export class OptionChecks {
  readonly #wrong: string[] = []

  /** Parses a number. The result for an invalid one is not used, since `throwIfWrong` throws. */
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

  /** Parses a comma-separated list of symbols to upper case, without duplicates. */
  symbols(option: string, text: string): readonly string[] {
    const names = text.split(',').map((name) => name.trim().toUpperCase())
    const symbols = new Set(names.filter((name) => name !== ''))
    if (symbols.size === 0 || [...symbols].some((name) => !SYMBOL.test(name))) {
      this.#wrong.push(`${option}: expected symbols such as BTCUSDT,ETHUSDT, got "${text}"`)
    }
    return [...symbols]
  }

  /** @throws {TapelineError} `INPUT` naming each wrong option, its value and the expected one */
  throwIfWrong(command: string): void {
    if (this.#wrong.length === 0) return
    throw new TapelineError('INPUT', `${this.#wrong.join('; ')}.`, {
      fix: `See \`bin/tapeline ${command} --help\`.`,
    })
  }
}
