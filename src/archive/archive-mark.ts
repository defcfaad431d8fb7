import { z } from 'zod'
import type { ObjectStore } from '../foundation/archive/object-store.ts'
import {
  type Mark,
  rejectOtherExchange,
  rejectOtherTimeUnit,
} from '../foundation/kafka/exchange-identity-mark.ts'
import { TIME_UNITS } from '../foundation/market/time-unit.ts'
import { TapelineError } from '../foundation/runtime/errors.ts'
import { parseJson } from '../foundation/runtime/outside-text.ts'

const KEY = '_meta.json'

const META = z.object({
  format: z.literal(1),
  /** Name of the exchange. */
  source: z.string(),
  timeUnit: z.enum(TIME_UNITS),
})

/**
 * Marks an archive with the exchange and unit of its rows, or compares it with the mark that it has.
 *
 * @throws TapelineError `SOURCE` for an archive of another exchange or unit; `ARCHIVE` for a folder
 *   with other files, or an archive of another version
 */
export async function markArchive(store: ObjectStore, { source, timeUnit }: Mark): Promise<void> {
  const existing = await store.read(KEY)
  if (existing === null && !(await store.isEmpty())) {
    throw new TapelineError('ARCHIVE', `${store.name} has files and is not an archive of Tapeline`, {
      fix: 'Set ARCHIVE_URL to an empty or new folder.',
    })
  }
  const own = Buffer.from(`${JSON.stringify({ format: 1, source, timeUnit })}\n`)
  if (existing === null) await store.create(KEY, own)
  const marked = META.safeParse(parseJson(String(await store.read(KEY))))
  if (!marked.success) {
    throw new TapelineError('ARCHIVE', `${store.name} has a ${KEY} that this program cannot read`, {
      fix: 'Use the version of Tapeline that wrote it, or another ARCHIVE_URL.',
    })
  }
  const fix = 'Set ARCHIVE_URL to another folder: one archive has the rows of one exchange in one unit.'
  rejectOtherExchange(`The files in ${store.name}`, marked.data.source, source, fix)
  rejectOtherTimeUnit(`The files in ${store.name}`, marked.data.timeUnit, timeUnit, fix)
}
