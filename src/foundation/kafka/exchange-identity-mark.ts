import { z } from 'zod'
import { TIME_UNITS, type TimeUnit, UNMARKED_TIME_UNIT } from '../market/time-unit.ts'
import { TapelineError } from '../runtime/errors.ts'
import { parseJson } from '../runtime/outside-text.ts'
import type { TopicNames } from './config.ts'

/** The key of the checkpoint that names the exchange of the data; a symbol has no `!`. */
export const EXCHANGE_IDENTITY_KEY = '!source'

const DATA_TOPICS = ['trades', 'bookTicker', 'depth', 'gaps'] as const

/** The identity of the topics that the checkpoints belong to. */
const MARK = z.object({
  /** Name of the exchange. */
  source: z.string().min(1),
  /** Unit of the trade and event times. */
  timeUnit: z.enum(TIME_UNITS).default(UNMARKED_TIME_UNIT),
  /** Without `depth` in topics from before it could be recorded. */
  topics: z.object({
    trades: z.string(),
    bookTicker: z.string(),
    depth: z.string().optional(),
    gaps: z.string(),
  }),
})
export type Mark = z.infer<typeof MARK>

export type ExchangeIdentity = Pick<Mark, 'source' | 'timeUnit'>

export function markOf({ source, timeUnit }: ExchangeIdentity, topics: TopicNames): Mark {
  const { trades, bookTicker, depth, gaps } = topics
  return { source, timeUnit, topics: { trades, bookTicker, depth, gaps } }
}

/** @throws TapelineError `SOURCE` if it is invalid */
export function parseMark(text: string, topic: string): Mark {
  const parsed = MARK.safeParse(parseJson(text))
  if (parsed.success) return parsed.data
  throw new TapelineError(
    'SOURCE',
    `Topic ${topic} has a record ${EXCHANGE_IDENTITY_KEY} that this program cannot read: ${JSON.stringify(text.slice(0, 100))}`,
    {
      cause: parsed.error,
      fix: 'Use the version that wrote it, or separate topics for this one (KAFKA_CHECKPOINTS_TOPIC, KAFKA_TRADES_TOPIC, …).',
    },
  )
}

/**
 * Refuses checkpoints of other data topics: they would stop another ingestion or mark new ids as
 * repeats. The id of a topic tells whether it was recreated under its name. @throws TapelineError
 * `SOURCE`
 */
export function rejectOtherTopics(topic: string, marked: Mark, own: Mark): void {
  const differing = DATA_TOPICS.filter(
    (name) => marked.topics[name] !== undefined && marked.topics[name] !== own.topics[name],
  )
  if (differing.length === 0) return
  const [theirs, ours] = [marked, own].map(({ topics }) => differing.map((name) => topics[name]).join(', '))
  throw new TapelineError('SOURCE', `The checkpoints in ${topic} belong to ${theirs}, not to ${ours}`, {
    fix: 'Set KAFKA_CHECKPOINTS_TOPIC to another topic, or restore the names of these topics.',
  })
}

/** Refuses data of two exchanges: their ids would open a gap of billions. @throws TapelineError `SOURCE` */
export function rejectOtherExchange(holder: string, marked: string, source: string, fix: string): void {
  if (marked === source) return
  throw new TapelineError(
    'SOURCE',
    `${holder} hold data of "${marked}", not of "${source}": they are never mixed`,
    { fix },
  )
}

/** Refuses another unit: a repeated trade would be stored twice. @throws TapelineError `SOURCE` */
export function rejectOtherTimeUnit(holder: string, marked: string, unit: TimeUnit, fix: string): void {
  if (marked === unit) return
  throw new TapelineError(
    'SOURCE',
    `${holder} hold times in ${marked}s, not in ${unit}s: a deployment uses one unit`,
    { fix },
  )
}
