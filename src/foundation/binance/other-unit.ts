import type { TimeUnit } from '../market/time-unit.ts'
import { TapelineError } from '../runtime/errors.ts'

/**
 * Returns the error for times in a unit that was not requested. A trade recorded in both units
 * would become two rows, so nothing is recorded.
 *
 * @param side the sender of the times
 * @param setting the setting with its URL
 */
export function otherUnit(
  side: 'REST' | 'The exchange',
  unit: TimeUnit,
  asked: TimeUnit,
  setting: 'BINANCE_REST_URL' | 'BINANCE_WS_URL',
): TapelineError {
  return new TapelineError(
    'EXCHANGE',
    `${side} sends times in ${unit}s, although Tapeline requested ${asked}s`,
    {
      fix: `Set TIME_UNIT=${unit}, with topics and a database that hold no times in ${asked}s; or correct ${setting}.`,
    },
  )
}
