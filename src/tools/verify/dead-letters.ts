import { HEADER, readEpoch } from '../../foundation/kafka/headers.ts'
import {
  declarationOf,
  idNameOf,
  SEQUENCED_TYPES,
  type SequencedType,
} from '../../foundation/market/event.ts'
import { isId } from '../../foundation/market/fields.ts'
import { type IdRange, normalise } from '../../foundation/market/id-ranges.ts'
import { isFields } from '../../foundation/market/payload.ts'
import { parseJson } from '../../foundation/runtime/outside-text.ts'
import { counted } from '../../foundation/telemetry/plural.ts'
import { finding, type Remark } from './findings.ts'
import type { Example } from './report-types.ts'
import type { CheckContext } from './scope.ts'

/**
 * A page of unresolved dead letters in the order of the primary key. PostgreSQL could parse the
 * JSON, but would abort the statement at the first invalid text. An event has some hundred bytes; a
 * much larger payload names no id.
 */
const PAGE = `SELECT topic, topic_id, partition, kafka_offset, digest, reason, headers,
    CASE WHEN octet_length(payload) <= 65536 THEN payload END AS payload
  FROM dead_letters
  WHERE resolved_at IS NULL AND (topic, topic_id, partition, kafka_offset, digest) > ($1, $2::uuid, $3::int, $4::bigint, $5::bytea)
  ORDER BY topic, topic_id, partition, kafka_offset, digest LIMIT 500`
const BEGINNING = ['', '00000000-0000-0000-0000-000000000000', -1, -1, Buffer.alloc(0)]

interface Row {
  readonly topic: string
  readonly topic_id: string
  readonly partition: number
  readonly kafka_offset: string
  readonly digest: Buffer
  readonly reason: string
  readonly payload: Buffer | null
  /** Headers of the original message; null if they were not kept. */
  readonly headers: ReadonlyArray<readonly [name: string, value: string]> | null
}

interface NamedId {
  readonly symbol: string
  readonly eventType: SequencedType
  readonly epoch: number
  /** One id, or the range that a change of an order book covers. */
  readonly ids: IdRange
  /** The trades that an aggTrade names. */
  readonly trades: readonly IdRange[]
}

export interface DeadLetters {
  /** The ids of a sequence in dead letters, as ranges that do not touch. */
  idsOf(sequence: SequenceKey): IdRange[]
  /** The update ids of a symbol's quotes in dead letters, in ascending order. */
  quotesOf(symbol: string): number[]
  /** The trade ids covered by aggTrades in dead letters, as ranges that do not touch. */
  tradesOfAggregates(sequence: SequenceKey): IdRange[]
  readonly findings: Remark[]
}

type SequenceKey = Pick<NamedId, 'symbol' | 'eventType' | 'epoch'>

const keyOf = ({ symbol, eventType, epoch }: SequenceKey) => `${symbol} ${eventType} ${epoch}`

/** The dead letters of a sequence, or those without an id and with the same reason. */
interface Group {
  count: number
  readonly first: NamedId | null
  readonly examples: Example[]
  readonly ids: IdRange[]
  readonly trades: IdRange[]
}

export async function readDeadLetters({ connection, scope, limit }: CheckContext): Promise<DeadLetters> {
  const named = new Map<string, Group>()
  const others = new Map<string, Group>()
  const quotes = new Map<string, number[]>()
  const add = (groups: Map<string, Group>, key: string, id: NamedId | null, detail: string) => {
    const group = groups.get(key) ?? { count: 0, first: id, examples: [], ids: [], trades: [] }
    groups.set(key, group)
    group.count++
    const range = id === null ? null : id.ids
    if (group.examples.length < limit) group.examples.push({ ...(range ?? { from: null, to: null }), detail })
    if (range !== null) group.ids.push(range)
    group.trades.push(...(id?.trades ?? []))
  }
  for (let after: readonly unknown[] | null = BEGINNING; after !== null; ) {
    const page: { rows: Row[] } = await connection.query<Row>(PAGE, after)
    for (const row of page.rows) {
      const id = namedId(row)
      const place = `${row.topic}, partition ${row.partition}, offset ${row.kafka_offset}`
      const quote = id === null ? namedQuote(row) : null
      if (quote !== null) quotes.set(quote.symbol, [...(quotes.get(quote.symbol) ?? []), quote.id])
      if (id === null) add(others, row.reason, null, place)
      else if (scope.symbols === null || scope.symbols.includes(id.symbol))
        add(named, keyOf(id), id, row.reason)
    }
    const last = page.rows.at(-1)
    after =
      last === undefined ? null : [last.topic, last.topic_id, last.partition, last.kafka_offset, last.digest]
  }
  const about = { check: 'dead letters', severity: 'notice' } as const
  return {
    idsOf: (sequence) => normalise(named.get(keyOf(sequence))?.ids ?? []),
    quotesOf: (symbol) => (quotes.get(symbol) ?? []).sort((one, other) => one - other),
    tradesOfAggregates: (sequence) => normalise(named.get(keyOf(sequence))?.trades ?? []),
    findings: [
      ...[...named.values()].map(({ count, first, examples }) => {
        const summary = `${counted(count, 'dead letter')}: received but not stored`
        const { symbol, eventType, epoch } = first ?? {}
        return finding({ ...about, kind: 'named', symbol, eventType, epoch, count, summary, examples })
      }),
      ...[...others].map(([reason, { count, examples }]) => {
        const summary = `${counted(count, 'dead letter')} without a usable id: ${reason}`
        return finding({ ...about, kind: reason, count, summary, examples })
      }),
    ],
  }
}

/** The ids that a dead letter would have stored, if its payload names them; null for quotes and snapshots. */
function namedId({ payload, headers }: Row): NamedId | null {
  const data = payload === null ? null : parse(payload)
  if (!isFields(data)) return null
  const { e, s, f, l } = data
  const eventType = SEQUENCED_TYPES.find((type) => declarationOf(type).eventName === e)
  if (eventType === undefined) return null
  const to = data[idNameOf(eventType)]
  const from = eventType === 'depth' ? data['U'] : to
  if (typeof s !== 'string' || !isId(from) || !isId(to) || from > to) return null
  // Without a restart of the ids there is no such header.
  const epoch = readEpoch(headers?.find(([name]) => name === HEADER.epoch)?.[1] ?? '0')
  const trades = eventType === 'aggTrade' && isId(f) && isId(l) && f <= l ? [{ from: f, to: l }] : []
  return epoch === null ? null : { symbol: s, eventType, epoch, ids: { from, to }, trades }
}

/** The update id of a dead letter that is a quote. */
function namedQuote({ payload }: Row): { symbol: string; id: number } | null {
  const data = payload === null ? null : parse(payload)
  if (!isFields(data) || data['e'] !== undefined) return null
  const { s: symbol, u: id } = data
  return typeof symbol === 'string' && isId(id) ? { symbol, id } : null
}

function parse(payload: Buffer): unknown {
  // Invalid JSON may be the reason for the dead letter; a rejected frame still has its envelope.
  const value = parseJson(payload.toString())
  return isFields(value) && isFields(value['data']) ? value['data'] : value
}
