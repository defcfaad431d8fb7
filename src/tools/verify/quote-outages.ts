import { readRecordings } from '../../foundation/store/meta.ts'
import { announcedPeriods, type Period } from './announced.ts'
import { usOf } from './depth-rows.ts'
import type { Quotes } from './quotes.ts'
import type { CheckContext } from './scope.ts'

/** Times in microseconds since the Unix epoch that belong to known windows. */
export interface Moments {
  has(us: number): boolean
}

/** A ledger row has milliseconds, and another connection may have delivered a change a little earlier. */
const AROUND_US = 1_000_000

const WINDOWS = `SELECT ${usOf('from_time')} AS "fromUs", ${usOf('coalesce(to_time, from_time)')} AS "toUs" FROM gaps
  WHERE symbol = $1 AND event_type = 'bookTicker' AND from_time IS NOT NULL`

interface Window {
  readonly fromUs: number
  readonly toUs: number
}

/**
 * When quotes of a symbol are missing for a known reason, by receipt: in windows of the ledger, while
 * ingestion did not record them, and after the last one.
 */
export async function quoteOutages(
  { connection }: CheckContext,
  quotes: readonly Quotes[],
): Promise<(symbol: string) => Promise<Moments>> {
  const always = { fromMs: 0, toMs: Number.POSITIVE_INFINITY }
  const announced = announcedPeriods(await readRecordings(connection), always)
  return async (symbol) => {
    const { rows } = await connection.query<Window>(WINDOWS, [symbol])
    const around = rows.map(({ fromUs, toUs }) => ({ fromUs: fromUs - AROUND_US, toUs: toUs + AROUND_US }))
    const last = quotes.find((one) => one.symbol === symbol)
    // Its last millisecond.
    const fromUs = last === undefined ? 0 : (Date.parse(last.lastAt) + 1) * 1000
    const periods = announced.get(symbol)?.get('bookTicker') ?? []
    return momentsIn([...around, ...between(periods), { fromUs, toUs: Number.POSITIVE_INFINITY }])
  }
}

/** The windows between the periods of a recording. */
function between(periods: readonly Period[]): Window[] {
  return periods.slice(1).map(({ fromMs }, i) => ({
    fromUs: (periods[i]?.toMs ?? fromMs) * 1000,
    toUs: fromMs * 1000,
  }))
}

/** @param windows both ends are included */
export function momentsIn(windows: readonly Window[]): Moments {
  const joined: Array<{ fromUs: number; toUs: number }> = []
  for (const { fromUs, toUs } of windows.toSorted((one, other) => one.fromUs - other.fromUs)) {
    const last = joined.at(-1)
    if (last !== undefined && fromUs <= last.toUs) last.toUs = Math.max(last.toUs, toUs)
    else joined.push({ fromUs, toUs })
  }
  return {
    has(us) {
      let [low, high] = [0, joined.length]
      while (low < high) {
        const middle = (low + high) >> 1
        if ((joined[middle]?.fromUs ?? 0) <= us) low = middle + 1
        else high = middle
      }
      return low > 0 && us <= (joined[low - 1]?.toUs ?? 0)
    },
  }
}
