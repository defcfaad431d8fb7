import { z } from 'zod'
import { EVENT_TYPES } from './event.ts'
import { isId, isSymbol, isTimeMs } from './fields.ts'

/*
 * A row of the ledger of what is missing, as its Kafka message has it (`schema` = `gap/1`, key = `gap_id`).
 * trade and aggTrade gaps are ranges of ids; a bookTicker gap is a window of time, since nothing counts its
 * updates. Times are milliseconds since the Unix epoch.
 */

const id = z.custom<number>(isId, 'an id')
const timeMs = z.custom<number>(isTimeMs, 'a time in milliseconds')
const word = z
  .string()
  .regex(/^[^\0]{1,200}$/, 'a text of at most 200 characters')
  .refine((text) => text.isWellFormed(), 'a text without lone surrogates')

export const GAP = z
  .object({
    gap_id: word,
    revision: z
      .int()
      .min(1)
      .max(2 ** 31 - 1),
    symbol: z.custom<string>(isSymbol, 'a symbol'),
    event_type: z.enum(EVENT_TYPES),
    epoch: z
      .int()
      .min(0)
      .max(2 ** 31 - 1),
    from_id: id.nullable(),
    to_id: id.nullable(),
    from_time: timeMs.nullable(),
    to_time: timeMs.nullable(),
    cause: word,
    status: z.enum(['open', 'filled', 'unrecoverable']),
    reason: word.nullable(),
    detected_at: timeMs,
    updated_at: timeMs,
    closed_at: timeMs.nullable(),
  })
  .refine((gap) => gap.from_id !== null || gap.from_time !== null, 'a range of ids or a window of time')

export type Gap = z.infer<typeof GAP>

/** Made of what never changes about a gap: a gap that is filled in part keeps its id and narrows. */
export function gapId(symbol: string, eventType: Gap['event_type'], epoch: number, from: number): string {
  return `${symbol}/${eventType}/${epoch}/${from}`
}
