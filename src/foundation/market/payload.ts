import { byEventType, declarationOf, type EventType, INVALIDATED, ROLES, type Role } from './event.ts'
import { type EventFields, lateSource } from './event-fields.ts'
import { isDecimal, isId, isSymbol, isTime } from './fields.ts'
import { MICROSECONDS_IN, type TimeUnit } from './time-unit.ts'

export type Fields = Readonly<Record<string, unknown>>

/** Whether the value is a JSON object. */
export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** If several fields are invalid, the first in this order is named. */
const CHECK_ORDER: readonly Role[] = [
  ...(['type', 'symbol', 'price', 'quantity', 'askPrice', 'askQuantity'] as const),
  ...(['tradeTime', 'isBuyerMaker', 'eventTime', 'id', 'firstTradeId', 'lastTradeId'] as const),
]

const checked = byEventType((type) =>
  CHECK_ORDER.flatMap((wanted) => declarationOf(type).layout.filter(([, role]) => role === wanted)),
)

/**
 * Reads an event that was parsed as JSON, except stamps and epoch. Ignores undeclared fields.
 * @param unit of the times; undefined if their digits decide
 * @returns null, or why it cannot be stored: a stable text that names the field
 */
export function readPayload(
  type: EventType,
  data: Fields,
  into: EventFields,
  unit = unitOf(type, data),
): string | null {
  into.begin(type, unit)
  for (const [name, role] of checked[type]) {
    const value = data[name]
    switch (ROLES[role].kind) {
      case 'type':
        if (value !== type) return `${name} is not ${type}`
        break
      case 'symbol':
        if (!isSymbol(value)) return `${name} is not a symbol`
        into.symbol = { text: value, bytes: Buffer.from(value) }
        break
      case 'id':
        if (!isId(value)) return `${name} is not an id`
        into.id = value
        break
      case 'decimal':
        if (!isDecimal(value)) return `${name} is not a decimal`
        into.addDecimal(value)
        break
      case 'time':
        // REST and daily files give no event time.
        if (role === 'eventTime' && value === undefined && lateSource(data['source']) !== null) break
        if (!isTime(value, unit)) return `${name} is not a time in ${unit}s`
        if (role === 'eventTime') into.eventTimeUs = value * MICROSECONDS_IN[unit]
        else into.tradeTimeUs = value * MICROSECONDS_IN[unit]
        break
      case 'tiles':
        if (isInvalidated(type, data)) break
        if (!isId(value)) return `${name} is not an id`
        if (role === 'firstTradeId') into.firstTradeId = value
        else if (value < into.firstTradeId) return 'f is above l'
        else into.lastTradeId = value
        break
      case 'flag':
        if (typeof value !== 'boolean') return `${name} is not a boolean`
        into.isBuyerMaker = value
        break
      case 'unused':
        break
    }
  }
  return null
}

/** Microseconds unless the trade time has the digits of milliseconds. */
function unitOf(type: EventType, data: Fields): TimeUnit {
  const [name] = declarationOf(type).layout.find(([, role]) => role === 'tradeTime') ?? []
  return name === undefined || isTime(data[name], 'microsecond') ? 'microsecond' : 'millisecond'
}

function isInvalidated(type: EventType, data: Fields): boolean {
  return declarationOf(type).layout.every(
    ([name, role]) => ROLES[role].kind !== 'tiles' || data[name] === INVALIDATED,
  )
}
