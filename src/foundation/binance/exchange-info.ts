import { setImmediate } from 'node:timers/promises'
import { z } from 'zod'

/** The status of a symbol that trades, in the exchange's own word. */
export const TRADING = 'TRADING'
/** Our word for a symbol that is not for spot trading, whatever its status. */
const NOT_SPOT = 'NOT_SPOT'

const SYMBOL = z.object({
  symbol: z.string(),
  status: z.string(),
  isSpotTradingAllowed: z.boolean().optional(),
})

/** The answer with a number in place of each object of its lists. */
const OUTLINE = z.object({ symbols: z.array(z.int()) })

/** The event loop is given back after so much work: about the time of two frames' arrivals at 5,000 a second. */
const PORTION_BYTES = 16_384

const [OPEN_OBJECT, CLOSE_OBJECT, OPEN_LIST, CLOSE_LIST, QUOTE, BACKSLASH] = Buffer.from('{}[]"\\')

/**
 * Reads the statuses of the symbols out of an answer to `exchangeInfo`, piece by piece: that of the whole market has
 * several megabytes, and `JSON.parse` of it would stop the event loop for tens of milliseconds.
 *
 * @returns the status of each symbol: `TRADING`, or `HALT`, `BREAK` and others, of which it may trade again
 * @throws when it is no JSON, ends early, or has no list of symbols
 */
export async function readExchangeInfo(body: AsyncIterable<Uint8Array>): Promise<Map<string, string>> {
  const reader = new ExchangeInfoReader()
  for await (const chunk of body) {
    for (let from = 0; from < chunk.length; from += PORTION_BYTES) {
      reader.read(
        Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length).subarray(from, from + PORTION_BYTES),
      )
      await setImmediate()
    }
  }
  return reader.statuses()
}

/** Parses each object of the answer's lists by `JSON.parse`; what is left of the answer is small. */
class ExchangeInfoReader {
  #depth = 0
  #isInString = false
  #isEscaped = false
  /** The bytes of the object that has begun, or of the outline, before the present portion. */
  #before: Buffer[] = []
  #outline = ''
  readonly #symbols: Array<z.infer<typeof SYMBOL> | null> = []

  read(portion: Buffer): void {
    let begin = 0
    const take = (end: number): string => {
      const text = Buffer.concat([...this.#before, portion.subarray(begin, end)]).toString()
      this.#before = []
      begin = end
      return text
    }
    for (let at = 0; at < portion.length; at++) {
      const byte = portion[at]
      if (this.#isInString) {
        if (this.#isEscaped) this.#isEscaped = false
        else if (byte === BACKSLASH) this.#isEscaped = true
        else if (byte === QUOTE) this.#isInString = false
      } else if (byte === QUOTE) this.#isInString = true
      else if (byte === OPEN_OBJECT || byte === OPEN_LIST) {
        if (byte === OPEN_OBJECT && this.#depth === 2) this.#outline += take(at)
        this.#depth++
      } else if (byte === CLOSE_OBJECT || byte === CLOSE_LIST) {
        this.#depth--
        if (byte === CLOSE_OBJECT && this.#depth === 2) this.#take(take(at + 1))
      }
    }
    if (begin < portion.length) this.#before.push(portion.subarray(begin))
  }

  #take(text: string): void {
    this.#outline += this.#symbols.length
    const symbol = SYMBOL.safeParse(JSON.parse(text))
    this.#symbols.push(symbol.success ? symbol.data : null)
  }

  statuses(): Map<string, string> {
    const outline = OUTLINE.parse(JSON.parse(this.#outline + Buffer.concat(this.#before).toString()))
    return new Map(
      outline.symbols.map((index) => {
        const symbol = this.#symbols[index]
        if (symbol === null || symbol === undefined)
          throw new Error(`Symbol ${index} of exchangeInfo makes no sense`)
        return [symbol.symbol, symbol.isSpotTradingAllowed === false ? NOT_SPOT : symbol.status]
      }),
    )
  }
}
