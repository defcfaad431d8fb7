import { parseJson } from '../../../foundation/runtime/outside-text.ts'
import { SYMBOL } from '../market/instruments.ts'

/** A request that the exchange answers with 400 and an error code. */
export class BadRequest extends Error {
  readonly code: number

  constructor(code: number, message: string) {
    super(message)
    this.name = 'BadRequest'
    this.code = code
  }
}

const SYMBOL_PATTERN = '^[\\w\\-._&&[^a-z]]{1,50}$'
const INTEGER_PATTERN = '^[0-9]{1,20}$'
const SYMBOLS_PATTERN = '^\\[("[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}){0,1}\\]$'
/** The number of rows or levels of an answer. */
const ROWS = { initial: 500, most: 1_000 }

/** The parameters of a request, read by name. `done` refuses unread ones, as the exchange does. */
export class Parameters {
  readonly #query: URLSearchParams
  readonly #read = new Set<string>()

  constructor(query: URLSearchParams) {
    this.#query = query
  }

  text(name: string): string | undefined {
    this.#read.add(name)
    const values = this.#query.getAll(name)
    if (values.length > 1) throw new BadRequest(-1101, `Duplicate values for parameter '${name}'.`)
    return values[0]
  }

  symbol(): string {
    const symbol = this.text('symbol')
    if (symbol === undefined || symbol === '') throw missing('symbol')
    return checkSymbol(symbol, 'symbol', SYMBOL_PATTERN)
  }

  /** The names of `symbols=["A","B"]` or `symbol=A`; undefined when neither is sent. */
  symbolList(): readonly string[] | undefined {
    const one = this.text('symbol')
    const many = this.text('symbols')
    if (one !== undefined && many !== undefined) {
      throw new BadRequest(-1128, 'Combination of optional parameters invalid.')
    }
    if (one !== undefined) return [checkSymbol(one, 'symbol', SYMBOL_PATTERN)]
    if (many === undefined) return undefined
    const names = parseJson(many)
    if (!Array.isArray(names)) throw illegalCharacters('symbols', SYMBOLS_PATTERN)
    return names.map((name) => checkSymbol(String(name), 'symbols', SYMBOLS_PATTERN))
  }

  /** A whole number ≥ 0, an id or a time in milliseconds. */
  integer(name: string, isRequired = false): number | undefined {
    const text = this.text(name)
    if (isRequired && (text === undefined || text === '')) throw missing(name)
    if (text === undefined) return undefined
    if (!/^\d{1,20}$/.test(text)) throw illegalCharacters(name, INTEGER_PATTERN)
    return Number(text)
  }

  /** Number of rows. A larger one is reduced to the most. */
  limit({ initial, most } = ROWS): number {
    const limit = this.integer('limit') ?? initial
    if (limit === 0) throw new BadRequest(-1130, "Data sent for parameter 'limit' is not valid.")
    return Math.min(most, limit)
  }

  done(): void {
    const sent = [...new Set(this.#query.keys())]
    const read = sent.filter((name) => this.#read.has(name)).length
    if (read === sent.length) return
    throw new BadRequest(
      -1104,
      `Not all sent parameters were read; read '${read}' parameter(s) but was sent '${sent.length}'.`,
    )
  }
}

function checkSymbol(symbol: string, name: string, pattern: string): string {
  if (!SYMBOL.test(symbol) || symbol !== symbol.toUpperCase()) throw illegalCharacters(name, pattern)
  return symbol
}

function missing(name: string): BadRequest {
  return new BadRequest(-1102, `Mandatory parameter '${name}' was not sent, was empty/null, or malformed.`)
}

function illegalCharacters(name: string, pattern: string): BadRequest {
  return new BadRequest(
    -1100,
    `Illegal characters found in parameter '${name}'; legal range is '${pattern}'.`,
  )
}
