import {
  byEventType,
  declarationOf,
  type EventType,
  INVALIDATED,
  isTradeType,
  ROLES,
  type Role,
} from './event.ts'
import { ABSENT, type EventFields, lateSource } from './event-fields.ts'
import { isDecimal, isId, isSnapshotLimit, isSymbol, isTime } from './fields.ts'
import { LEVEL_DOES_NOT_FIT, levelsFit } from './packed-levels.ts'
import { MICROSECONDS_IN, type TimeUnit } from './time-unit.ts'

export type Fields = Readonly<Record<string, unknown>>

/** Whether the value is a JSON object. */
export function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** If several fields are invalid, the first in this order is named. */
const CHECK_ORDER: readonly Role[] = [
  ...(['type', 'symbol', 'price', 'quantity', 'askPrice', 'askQuantity'] as const),
  ...(['tradeTime', 'isBuyerMaker', 'eventTime', 'firstId', 'id', 'firstTradeId', 'lastTradeId'] as const),
  ...(['limit', 'bids', 'asks'] as const),
]

const checked = byEventType((type) =>
  declarationOf(type)
    .layout.filter(([, role]) => role !== 'unused')
    .toSorted(([, one], [, other]) => CHECK_ORDER.indexOf(one) - CHECK_ORDER.indexOf(other)),
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
  const { eventName } = declarationOf(type)
  for (const [name, role] of checked[type]) {
    const value = data[name]
    switch (ROLES[role].kind) {
      case 'type':
        if (value !== eventName) return `${name} is not ${eventName}`
        break
      case 'symbol':
        if (!isSymbol(value)) return `${name} is not a symbol`
        into.symbol = { text: value, bytes: Buffer.from(value) }
        break
      case 'id':
        if (!isId(value)) return `${name} is not an id`
        if (role === 'firstId') {
          into.firstId = value
          break
        }
        if (into.firstId === ABSENT) into.firstId = value
        else if (into.firstId > value) return 'U is above u'
        into.id = value
        break
      case 'decimal':
        if (!isDecimal(value)) return `${name} is not a decimal`
        into.addDecimal(value)
        break
      case 'time':
        // REST and daily files give no event time.
        if (role === 'eventTime' && value === undefined && isLate(type, data)) break
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
      case 'limit':
        if (!isSnapshotLimit(value)) return `${name} is not a number of levels`
        into.limit = value
        break
      case 'levels':
        if (!isLevels(value)) return `${name} is not a list of levels`
        into.addLevels(role === 'bids' ? 'bids' : 'asks', value)
        // The last side: both are read.
        if (role === 'asks' && !levelsFit(into)) return LEVEL_DOES_NOT_FIT
        break
      case 'unused':
        break
    }
  }
  return null
}

function isLevels(value: unknown): value is Array<[price: string, quantity: string]> {
  const isLevel = (one: unknown) => Array.isArray(one) && one.length === 2 && one.every(isDecimal)
  return Array.isArray(value) && value.every(isLevel)
}

function isLate(type: EventType, data: Fields): boolean {
  return isTradeType(type) && lateSource(data['source']) !== null
}

/** Microseconds unless its trade time, or its only time, has the digits of milliseconds. */
function unitOf(type: EventType, data: Fields): TimeUnit {
  const { layout } = declarationOf(type)
  const [name] = layout.findLast(([, role]) => ROLES[role].kind === 'time') ?? []
  return name === undefined || isTime(data[name], 'microsecond') ? 'microsecond' : 'millisecond'
}

function isInvalidated(type: EventType, data: Fields): boolean {
  return declarationOf(type).layout.every(
    ([name, role]) => ROLES[role].kind !== 'tiles' || data[name] === INVALIDATED,
  )
}
