import {
  declarationOf,
  ROLES,
  type Role,
  restOf,
  streamName,
  type TickType,
  type TradeType,
} from '../../../foundation/market/event.ts'
import { multiply } from './decimals.ts'

/** A trade of any type: the values of its fields, by their roles. Times are in the market's unit. */
export interface TradeEvent {
  readonly id: number
  readonly eventTime: number
  readonly tradeTime: number
  readonly price: string
  readonly quantity: string
  readonly isBuyerMaker: boolean
  /** The trades of an aggTrade; other types have none. */
  readonly firstTradeId?: number
  readonly lastTradeId?: number
}

type Values = Readonly<Partial<Record<Role, string | number | boolean>>>

/** A bookTicker; the bid is in `price` and `quantity`. */
export interface QuoteEvent {
  readonly id: number
  readonly price: string
  readonly quantity: string
  readonly askPrice: string
  readonly askQuantity: string
}

/** A writer of the frames of one combined stream; compiled, since it runs for every event. */
export function frameWriter(symbol: string, type: TickType): (event: TradeEvent | QuoteEvent) => string {
  const constants: Values = { type, symbol, unused: true }
  const parts: Array<readonly [before: string, role: Role]> = []
  let literal = `{"stream":${JSON.stringify(streamName(symbol, type))},"data":{`
  for (const [index, [name, role]] of declarationOf(type).layout.entries()) {
    literal += `${index === 0 ? '' : ','}"${name}":`
    if (constants[role] !== undefined) {
      literal += JSON.stringify(constants[role])
      continue
    }
    const quote = ROLES[role].kind === 'decimal' ? '"' : ''
    parts.push([literal + quote, role])
    literal = quote
  }
  return (event: Values) => {
    let text = ''
    for (const [before, role] of parts) text += before + event[role]
    return `${text}${literal}}}`
  }
}

/** A row of REST. Tapeline does not read `quoteQty`, so no declaration has it. */
export function rowOf(type: TradeType, event: TradeEvent): object {
  const values: Values = { unused: true, ...event }
  const fields = restOf(type).row.flatMap(([name, role]) =>
    name === 'qty'
      ? [[name, event.quantity] as const, ['quoteQty', multiply(event.price, event.quantity)] as const]
      : [[name, values[role]] as const],
  )
  return Object.fromEntries(fields)
}
