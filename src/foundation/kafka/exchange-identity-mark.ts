import { TapelineError } from '../runtime/errors.ts'

/**
 * The key of the record in the checkpoints topic that names the exchange the topics' data came from. No symbol
 * has an exclamation mark.
 */
export const EXCHANGE_IDENTITY_KEY = '!source'

/**
 * Refuses to mix data of two exchanges: live and simulated ids beside each other would open a gap of billions.
 *
 * @param holder what is marked, for the message: `These Kafka topics`, `This database`
 * @throws TapelineError `SOURCE`
 */
export function rejectOtherExchange(holder: string, marked: string, source: string, fix: string): void {
  if (marked === source) return
  throw new TapelineError(
    'SOURCE',
    `${holder} hold data of "${marked}", not of "${source}": they are never mixed`,
    { fix },
  )
}
