import { z } from 'zod'
import { OUTSIDE_TEXT_MAX } from '../runtime/outside-text.ts'
import { STREAM_TYPES } from './event.ts'
import { epochField, idField, symbolField, timeMsField } from './fields.ts'

/*
 * A ledger row as its Kafka message (`schema` = `gap/1`, key = `gap_id`). Gaps of trades and depth
 * are ranges of ids, except windows in which the ids are unknown. A gap of bookTicker is always a
 * window, since its updates are not numbered contiguously. Times are milliseconds since the Unix epoch.
 */

const word = z
  .string()
  .regex(/^[^\0]{1,200}$/, `a text of at most ${OUTSIDE_TEXT_MAX} characters`)
  .refine((text) => text.isWellFormed(), 'a text without lone surrogates')

export const GAP = z
  .object({
    gap_id: word,
    revision: z
      .int()
      .min(1)
      .max(2 ** 31 - 1),
    symbol: symbolField,
    event_type: z.enum(STREAM_TYPES),
    epoch: epochField,
    from_id: idField.nullable(),
    to_id: idField.nullable(),
    from_time: timeMsField.nullable(),
    to_time: timeMsField.nullable(),
    cause: word,
    status: z.enum(['open', 'filled', 'unrecoverable']),
    reason: word.nullable(),
    detected_at: timeMsField,
    updated_at: timeMsField,
    closed_at: timeMsField.nullable(),
  })
  .refine((gap) => gap.from_id !== null || gap.from_time !== null, 'a range of ids or a window of time')

export type Gap = z.infer<typeof GAP>

/** Returns the id of a gap, from the parts that stay when it is partly filled. */
export function gapId(symbol: string, eventType: Gap['event_type'], epoch: number, from: number): string {
  return `${symbol}/${eventType}/${epoch}/${from}`
}
