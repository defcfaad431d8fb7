import { type EventType, streamName } from '../../../foundation/market/event.ts'
import { multiply } from './decimals.ts'

/** The `data` of a frame of each stream type, with the exchange's names and order of keys. */
export interface MarketData {
  trade: {
    readonly e: 'trade'
    readonly E: number
    readonly s: string
    readonly t: number
    readonly p: string
    readonly q: string
    readonly T: number
    readonly m: boolean
    readonly M: boolean
  }
  aggTrade: {
    readonly e: 'aggTrade'
    readonly E: number
    readonly s: string
    readonly a: number
    readonly p: string
    readonly q: string
    readonly f: number
    readonly l: number
    readonly T: number
    readonly m: boolean
    readonly M: boolean
  }
  bookTicker: {
    readonly u: number
    readonly s: string
    readonly b: string
    readonly B: string
    readonly a: string
    readonly A: string
  }
}

/** Stream types with consecutive ids, which REST shows. */
export const ID_TYPES = ['trade', 'aggTrade'] as const

export type IdType = (typeof ID_TYPES)[number]

/** How REST serves one type. */
interface RestRows<Data> {
  /** Below `/api/v3/`. */
  readonly path: string
  readonly weight: number
  /** Whether a query may select by time. */
  readonly byTime: boolean
  /** The fields of `data` that contain ids, with their sequences; its own id first. */
  readonly ids: ReadonlyArray<readonly [field: string, type: IdType]>
  readonly id: (data: Data) => number
  /** A row, with the exchange's names and order of keys. */
  readonly row: (data: Data) => object
}

export const REST_ROWS: { readonly [Type in IdType]: RestRows<MarketData[Type]> } = {
  trade: {
    path: 'historicalTrades',
    weight: 25,
    byTime: false,
    ids: [['t', 'trade']],
    id: ({ t }) => t,
    row: ({ t: id, p: price, q: qty, T: time, m: isBuyerMaker }) => {
      return { id, price, qty, quoteQty: multiply(price, qty), time, isBuyerMaker, isBestMatch: true }
    },
  },
  aggTrade: {
    path: 'aggTrades',
    weight: 4,
    byTime: true,
    ids: [
      ['a', 'aggTrade'],
      ['f', 'trade'],
      ['l', 'trade'],
    ],
    id: ({ a }) => a,
    row: ({ a, p, q, f, l, T, m }) => ({ a, p, q, f, l, T, m, M: true }),
  },
}

/** A frame of a combined stream. */
export function frameOf<Type extends EventType>(symbol: string, type: Type, data: MarketData[Type]): string {
  return `{"stream":${JSON.stringify(streamName(symbol, type))},"data":${JSON.stringify(data)}}`
}
