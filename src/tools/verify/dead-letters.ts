import { HEADER, readEpoch } from '../../foundation/kafka/headers.ts'
import { idNameOf, TRADE_TYPES, type TradeType } from '../../foundation/market/event.ts'
import { isId } from '../../foundation/market/fields.ts'
import { type IdRange, normalise } from '../../foundation/market/id-ranges.ts'
import { isFields } from '../../foundation/market/payload.ts'
import { parseJson } from '../../foundation/runtime/outside-text.ts'
import { counted } from '../../foundation/telemetry/plural.ts'
import { finding } from './findings.ts'
import type { Example, Finding } from './report-types.ts'
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
  readonly eventType: TradeType
  readonly epoch: number
  readonly id: number
  /** The trades that an aggTrade names; null if there are none. */
  readonly trades: IdRange | null
}

/** Content of the unresolved dead letters. */
export interface DeadLetters {
  /** The ids of a sequence in dead letters, as a PostgreSQL multirange. */
  idsOf(symbol: string, eventType: string, epoch: number): string
  /** The trade ids covered by aggTrades in dead letters, as a PostgreSQL multirange. */
  tradesOfAggregates(symbol: string, epoch: number): string
  readonly findings: Finding[]
}

export async function readDeadLetters({ connection, scope, limit }: CheckContext): Promise<DeadLetters> {
  const named = new Tally(limit)
  const others = new Tally(limit)
  const ranges = new Map<string, IdRange[]>()
  const covered = new Map<string, IdRange[]>()
  const add = (to: Map<string, IdRange[]>, key: string, range: IdRange) => {
    const known = to.get(key) ?? []
    known.push(range)
    to.set(key, known)
  }
  for (let after: readonly unknown[] | null = BEGINNING; after !== null; ) {
    const page: { rows: Row[] } = await connection.query<Row>(PAGE, after)
    for (const row of page.rows) {
      const id = namedId(row)
      if (id === null) {
        others.add(row.reason, null, `${row.topic}, partition ${row.partition}, offset ${row.kafka_offset}`)
      } else if (scope.symbols === null || scope.symbols.includes(id.symbol)) {
        const key = keyOf(id.symbol, id.eventType, id.epoch)
        named.add(key, id, row.reason)
        add(ranges, key, { from: id.id, to: id.id })
        if (id.trades !== null) add(covered, key, id.trades)
      }
    }
    const last = page.rows.at(-1)
    after =
      last === undefined ? null : [last.topic, last.topic_id, last.partition, last.kafka_offset, last.digest]
  }
  return {
    idsOf: (symbol, eventType, epoch) => multirange(ranges.get(keyOf(symbol, eventType, epoch))),
    tradesOfAggregates: (symbol, epoch) => multirange(covered.get(keyOf(symbol, 'aggTrade', epoch))),
    findings: [
      ...named.findings((_, count) => `${counted(count, 'dead letter')}: received but not stored`),
      ...others.findings(
        (reason, count) => `${counted(count, 'dead letter')} without a usable id: ${reason}`,
      ),
    ],
  }
}

function multirange(ranges: readonly IdRange[] = []): string {
  return `{${normalise(ranges)
    .map(({ from, to }) => `[${from},${to}]`)
    .join()}}`
}

/** Counts cases, and keeps the first ones of each kind. */
class Tally {
  readonly #limit: number
  readonly #kinds = new Map<string, { count: number; first: NamedId | null; examples: Example[] }>()

  constructor(limit: number) {
    this.#limit = limit
  }

  add(kind: string, id: NamedId | null, detail: string): void {
    const known = this.#kinds.get(kind) ?? { count: 0, first: id, examples: [] }
    known.count += 1
    if (known.examples.length < this.#limit)
      known.examples.push({ from: id?.id ?? null, to: id?.id ?? null, detail })
    this.#kinds.set(kind, known)
  }

  findings(summary: (kind: string, count: number) => string): Finding[] {
    return [...this.#kinds].map(([kind, { count, first, examples }]) => {
      const about = { kind: first === null ? kind : 'named', summary: summary(kind, count), count, examples }
      const { symbol, eventType, epoch } = first ?? {}
      return finding({ check: 'dead letters', severity: 'notice', symbol, eventType, epoch, ...about })
    })
  }
}

function keyOf(symbol: string, eventType: string, epoch: number): string {
  return `${symbol} ${eventType} ${epoch}`
}

/**
 * The id that a dead letter would have stored, if its payload names it. Ids of quotes are ignored:
 * they explain nothing.
 */
function namedId({ payload, headers }: Row): NamedId | null {
  const data = payload === null ? null : parse(payload)
  if (!isFields(data)) return null
  const { e, s } = data
  const eventType = TRADE_TYPES.find((type) => type === e)
  if (eventType === undefined) return null
  const id = data[idNameOf(eventType)]
  if (typeof s !== 'string' || typeof id !== 'number' || !Number.isSafeInteger(id)) return null
  // Without a restart of the ids there is no such header.
  const epoch = readEpoch(headers?.find(([name]) => name === HEADER.epoch)?.[1] ?? '0')
  return epoch !== null ? { symbol: s, eventType, epoch, id, trades: tradesOf(data) } : null
}

function tradesOf({ e, f, l }: Readonly<Record<string, unknown>>): IdRange | null {
  return e === 'aggTrade' && isId(f) && isId(l) && f <= l ? { from: f, to: l } : null
}

function parse(payload: Buffer): unknown {
  // Invalid JSON may be the reason for the dead letter; a rejected frame still has its envelope.
  const value = parseJson(payload.toString())
  return isFields(value) && isFields(value['data']) ? value['data'] : value
}
