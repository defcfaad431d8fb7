import { isUtf8 } from 'node:buffer'
import { decimalEnd, SharedBytes } from '../runtime/bytes.ts'
import { declarationOf, EVENT_TYPES, type EventType, isTradeType, ROLES, type Role } from './event.ts'
import { ABSENT, EventFields, type KnownSymbol, LATE_SOURCES } from './event-fields.ts'
import {
  DECIMAL_DIGITS,
  FIRST_TIME_MS,
  FIRST_TIME_US,
  isSnapshotLimit,
  isSymbol,
  LAST_TIME_MS,
  LAST_TIME_US,
} from './fields.ts'
import { LevelChecker } from './levels.ts'
import { levelsFit } from './packed-levels.ts'

/*
 * The exchange writes each kind of event in one layout: fixed order, no spaces, no escapes. This
 * scanner reads that layout directly from the bytes, without strings or objects, several times
 * faster than `JSON.parse` and without garbage. A deviation of one byte sends the event through
 * `JSON.parse` and `payload.ts`, which also report what is wrong. The scanner decides nothing: it
 * gives the same fields as that path (`test/market-event-scanner.test.ts`).
 */

/** What to read after a literal. Small integers, because a switch over them is fast. */
const READ = {
  end: 0,
  eventTime: 1,
  tradeTime: 2,
  symbol: 3,
  id: 4,
  price: 5,
  quantity: 6,
  askPrice: 7,
  askQuantity: 8,
  firstTradeId: 9,
  lastTradeId: 10,
  isBuyerMaker: 11,
  unused: 12,
  firstId: 13,
  bids: 14,
  asks: 15,
  limit: 16,
} as const satisfies Record<Exclude<Role, 'type'> | 'end', number>

interface Step {
  /** The bytes before the value. */
  readonly literal: Uint8Array
  readonly read: number
}

interface Plan {
  readonly type: EventType
  readonly steps: readonly Step[]
  /** The same event without event time, as REST and daily files give it; null if they do not. */
  readonly late: Plan | null
}

/** The characters around a value. */
const ENCLOSING: Partial<Record<(typeof ROLES)[Role]['kind'], readonly [opening: string, closing: string]>> =
  {
    symbol: ['"', '"'],
    decimal: ['"', '"'],
    levels: ['[', ']'],
  }

/** Returns the literals between the values of a layout, up to the closing brace. */
function planOf(type: EventType, isLate = false): Plan {
  const steps: Step[] = []
  let before = '{'
  const { layout, eventName } = declarationOf(type)
  for (const [name, role] of layout) {
    if (isLate && role === 'eventTime') continue
    before += `"${name}":`
    if (role === 'type') {
      before += `"${eventName}",`
      continue
    }
    const { kind } = ROLES[role]
    const [opening, closing] = ENCLOSING[kind] ?? ['', '']
    steps.push({ literal: Buffer.from(before + opening), read: READ[role] })
    before = `${closing},`
  }
  steps.push({ literal: Buffer.from(before.slice(0, -1)), read: READ.end })
  return { type, steps, late: isTradeType(type) && !isLate ? planOf(type, true) : null }
}

/** The first letter of the first name: `{"u`. If that is `e`, the sixth of the event's name: `{"e":"depthU`. */
const KEY_AT = 2
const TYPE_AT = 11
const TYPE_LETTER = 5
const LETTER_E = 0x65
const BY_KEY: Array<Plan | undefined> = new Array(256).fill(undefined)
const BY_TYPE: Array<Plan | undefined> = new Array(256).fill(undefined)
for (const type of EVENT_TYPES) {
  const { layout, eventName } = declarationOf(type)
  const [[name, role] = ['', 'unused']] = layout
  const letterOfType = `${eventName}"`.charCodeAt(TYPE_LETTER)
  const [plans, letter] = role === 'type' ? [BY_TYPE, letterOfType] : [BY_KEY, name.charCodeAt(0)]
  if (plans[letter] !== undefined) throw new Error(`Two event types have the letter of ${type}`)
  plans[letter] = planOf(type)
}

const RECEIVED_MS = Buffer.from(',"ingestion_timestamp":')
const RECEIVED_US = Buffer.from(',"ingestion_timestamp_us":')
/** The text after the fields of a stored event without event time. */
const SOURCES = LATE_SOURCES.map((source) => ({ source, literal: Buffer.from(`,"source":"${source}"`) }))
const TRUE = Buffer.from('true')
const FALSE = Buffer.from('false')

const QUOTE = 0x22
const ZERO = 0x30
const CLOSING_BRACE = 0x7d
/** Digits of 2⁵³ − 1, the largest integer that a double represents exactly. */
const INTEGER_DIGITS = 16

/** A symbol has at most 40 characters. */
const SYMBOL_MAX_BYTES = 160

function planAt(bytes: Buffer, start: number): Plan | undefined {
  const key = bytes[start + KEY_AT] ?? 0
  return key === LETTER_E ? BY_TYPE[bytes[start + TYPE_AT] ?? 0] : BY_KEY[key]
}

/** Reads events in the exchange's layout into {@link fields}, which are meaningless after a failure. */
export class EventScanner {
  readonly fields: EventFields
  readonly #levels = new LevelChecker()
  readonly #symbols = new SharedBytes<KnownSymbol | null>((bytes) => knownSymbol(bytes))
  #bytes: Buffer = Buffer.alloc(0)
  #at = 0
  #end = 0

  constructor(fields: EventFields = new EventFields()) {
    this.fields = fields
  }

  /** Reads an event as the exchange sends it, braces included. @returns false if it is not in the layout */
  readEvent(bytes: Buffer, start: number, end: number): boolean {
    return this.#readData(bytes, start, end) && this.#isClosedAtEnd()
  }

  /** Reads a stored event, whose fields are followed by its source, unless it is the stream, and two stamps. */
  readStamped(bytes: Buffer, start: number, end: number): boolean {
    if (!this.#readData(bytes, start, end)) {
      const late = planAt(bytes, start)?.late ?? null
      if (late === null || !this.#readPlan(late, bytes, start, end) || !this.#source()) return false
    }
    if (!this.#literal(RECEIVED_MS) || this.#integer() < 0 || !this.#literal(RECEIVED_US)) return false
    const receivedUs = this.#integer()
    this.fields.receivedUs = receivedUs
    return receivedUs >= FIRST_TIME_US && receivedUs < LAST_TIME_US && this.#isClosedAtEnd()
  }

  #readData(bytes: Buffer, start: number, end: number): boolean {
    const plan = end - start <= TYPE_AT ? undefined : planAt(bytes, start)
    return plan !== undefined && this.#readPlan(plan, bytes, start, end)
  }

  #readPlan(plan: Plan, bytes: Buffer, start: number, end: number): boolean {
    this.#bytes = bytes
    this.#at = start
    this.#end = end
    const { fields } = this
    fields.bytes = bytes
    fields.source = 'stream'
    fields.type = plan.type
    fields.firstId = ABSENT
    fields.eventTimeUs = ABSENT
    fields.firstTradeId = ABSENT
    fields.lastTradeId = ABSENT
    const { steps } = plan
    let hasLongLevels = false
    for (let i = 0; i < steps.length; i++) {
      const step = steps[i] as Step
      if (!this.#literal(step.literal)) return false
      const from = this.#at
      switch (step.read) {
        case READ.end:
          break
        case READ.symbol:
          if (!this.#symbol()) return false
          break
        case READ.price:
          if (!this.#decimal()) return false
          fields.priceStart = from
          fields.priceEnd = this.#at
          break
        case READ.quantity:
          if (!this.#decimal()) return false
          fields.quantityStart = from
          fields.quantityEnd = this.#at
          break
        case READ.askPrice:
          if (!this.#decimal()) return false
          fields.askPriceStart = from
          fields.askPriceEnd = this.#at
          break
        case READ.askQuantity:
          if (!this.#decimal()) return false
          fields.askQuantityStart = from
          fields.askQuantityEnd = this.#at
          break
        case READ.id:
          fields.id = this.#integer()
          if (fields.id < 0 || fields.firstId > fields.id) return false
          if (fields.firstId === ABSENT) fields.firstId = fields.id
          break
        case READ.firstId:
          fields.firstId = this.#integer()
          if (fields.firstId < 0) return false
          break
        case READ.bids:
          if (!this.#readLevels()) return false
          fields.bidsStart = from
          fields.bidsEnd = this.#at
          fields.bidCount = this.#levels.count
          hasLongLevels = this.#levels.hasLong
          break
        case READ.asks:
          if (!this.#readLevels()) return false
          fields.asksStart = from
          fields.asksEnd = this.#at
          fields.askCount = this.#levels.count
          hasLongLevels ||= this.#levels.hasLong
          if (hasLongLevels && !levelsFit(fields)) return false
          break
        case READ.limit:
          fields.limit = this.#integer()
          if (!isSnapshotLimit(fields.limit)) return false
          break
        case READ.eventTime:
          fields.eventTimeUs = this.#time()
          if (fields.eventTimeUs === ABSENT) return false
          break
        case READ.tradeTime: {
          const { timeUnit } = fields
          fields.tradeTimeUs = this.#time()
          if (fields.tradeTimeUs === ABSENT) return false
          if (fields.eventTimeUs !== ABSENT && fields.timeUnit !== timeUnit) return false
          break
        }
        case READ.firstTradeId:
          fields.firstTradeId = this.#integer()
          if (fields.firstTradeId < 0) return false
          break
        case READ.lastTradeId:
          fields.lastTradeId = this.#integer()
          if (fields.firstTradeId > fields.lastTradeId) return false
          break
        case READ.isBuyerMaker:
          fields.isBuyerMaker = this.#literal(TRUE)
          if (!fields.isBuyerMaker && !this.#literal(FALSE)) return false
          break
        default:
          if (!this.#literal(TRUE) && !this.#literal(FALSE)) return false
      }
    }
    return true
  }

  #source(): boolean {
    for (const { source, literal } of SOURCES)
      if (this.#literal(literal)) {
        this.fields.source = source
        return true
      }
    return false
  }

  #isClosedAtEnd(): boolean {
    return this.#at === this.#end - 1 && this.#bytes[this.#at] === CLOSING_BRACE
  }

  /** Skips these bytes if they are next. */
  #literal(expected: Uint8Array): boolean {
    const bytes = this.#bytes
    const at = this.#at
    const { length } = expected
    if (at + length > this.#end) return false
    for (let i = 0; i < length; i++) if (bytes[at + i] !== expected[i]) return false
    this.#at = at + length
    return true
  }

  /** Reads a time, notes its unit, and returns microseconds; {@link ABSENT} if it is not a time. */
  #time(): number {
    const time = this.#integer()
    const { fields } = this
    if (time >= FIRST_TIME_US && time < LAST_TIME_US) {
      fields.timeUnit = 'microsecond'
      return time
    }
    if (time < FIRST_TIME_MS || time >= LAST_TIME_MS) return ABSENT
    fields.timeUnit = 'millisecond'
    return time * 1000
  }

  /** @returns -1 if there is no integer, or not one that JSON and a double represent exactly */
  #integer(): number {
    const bytes = this.#bytes
    const start = this.#at
    const end = Math.min(this.#end, start + INTEGER_DIGITS)
    let at = start
    let value = 0
    for (; at < end; at++) {
      const digit = (bytes[at] ?? 0) - ZERO
      if (digit < 0 || digit > 9) break
      value = value * 10 + digit
    }
    this.#at = at
    const isPadded = at - start > 1 && bytes[start] === ZERO
    return at === start || isPadded || value > Number.MAX_SAFE_INTEGER ? -1 : value
  }

  #decimal(): boolean {
    const end = decimalEnd(this.#bytes, this.#at, this.#end, DECIMAL_DIGITS)
    this.#at = end
    return end >= 0
  }

  #readLevels(): boolean {
    const end = this.#levels.endOf(this.#bytes, this.#at, this.#end)
    this.#at = end
    return end >= 0
  }

  #symbol(): boolean {
    const bytes = this.#bytes
    const start = this.#at
    const end = Math.min(this.#end, start + SYMBOL_MAX_BYTES + 1)
    let at = start
    while (at < end && bytes[at] !== QUOTE) at++
    if (at === end) return false
    const symbol = this.#symbols.of(bytes, start, at)
    if (symbol === null) return false
    this.fields.symbol = symbol
    this.#at = at
    return true
  }
}

/** Returns null if the bytes are not a symbol, for example with a JSON escape. */
export function knownSymbol(bytes: Buffer): KnownSymbol | null {
  const text = bytes.toString()
  return isUtf8(bytes) && isSymbol(text) ? { text, bytes } : null
}
