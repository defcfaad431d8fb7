import { setImmediate } from 'node:timers/promises'
import { z } from 'zod'

/** The exchange's status of a symbol that trades. */
export const TRADING = 'TRADING'
/** Our status of a symbol without spot trading. */
const NOT_SPOT = 'NOT_SPOT'

const SYMBOL = z.object({
  symbol: z.string(),
  status: z.string(),
  isSpotTradingAllowed: z.boolean().optional(),
})

/** The answer with a number in place of each list object. */
const OUTLINE = z.object({ symbols: z.array(z.int()) })

/** Work between two yields to the event loop: about the interval of two frames at 5,000 per second. */
const PORTION_BYTES = 16_384

const [OPEN_OBJECT, CLOSE_OBJECT, OPEN_LIST, CLOSE_LIST, QUOTE, BACKSLASH] = Buffer.from('{}[]"\\')

/**
 * Reads the status of each symbol from an `exchangeInfo` answer in portions: parsing several
 * megabytes at once would block for tens of milliseconds. @throws without a valid list of symbols
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

/** Parses each list object with `JSON.parse`; the rest of the answer is small. */
class ExchangeInfoReader {
  #depth = 0
  #isInString = false
  #isEscaped = false
  /** The bytes of the unfinished object, or of the outline, from earlier portions. */
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
          throw new Error(`Symbol ${index} of exchangeInfo is not a valid symbol`)
        return [symbol.symbol, symbol.isSpotTradingAllowed === false ? NOT_SPOT : symbol.status]
      }),
    )
  }
}
