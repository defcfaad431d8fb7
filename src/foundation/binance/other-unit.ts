import type { TimeUnit } from '../market/time-unit.ts'
import { TapelineError } from '../runtime/errors.ts'

/**
 * The exchange sends times in a unit that it was not asked for. The same trade in both units would be two rows, so nothing
 * of it is recorded.
 *
 * @param side what sends them
 * @param setting the URL that leads there
 */
export function otherUnit(
  side: 'REST' | 'The exchange',
  unit: TimeUnit,
  asked: TimeUnit,
  setting: 'BINANCE_REST_URL' | 'BINANCE_WS_URL',
): TapelineError {
  return new TapelineError(
    'EXCHANGE',
    `${side} sends times in ${unit}s, although it was asked for ${asked}s`,
    {
      fix: `Set TIME_UNIT=${unit}, with other topics and another database than those begun in ${asked}s; or correct ${setting}.`,
    },
  )
}
