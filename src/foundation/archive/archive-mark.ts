import { z } from 'zod'
import {
  type ExchangeIdentity,
  rejectOtherExchange,
  rejectOtherTimeUnit,
} from '../kafka/exchange-identity-mark.ts'
import { TIME_UNITS } from '../market/time-unit.ts'
import { TapelineError } from '../runtime/errors.ts'
import { parseJson } from '../runtime/outside-text.ts'
import type { ObjectStore } from './object-store.ts'

export const ARCHIVE_MARK_KEY = '_meta.json'

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
export async function markArchive(store: ObjectStore, { source, timeUnit }: ExchangeIdentity): Promise<void> {
  if ((await readMark(store)) === null) {
    // Another service that starts for the first time may have marked it meanwhile.
    if (!(await store.isEmpty()) && (await readMark(store)) === null)
      throw notAnArchive(store, 'Set ARCHIVE_URL to an empty or new folder.')
    await store.create(ARCHIVE_MARK_KEY, Buffer.from(`${JSON.stringify({ format: 1, source, timeUnit })}\n`))
  }
  const marked = await requireMark(store)
  const fix = 'Set ARCHIVE_URL to another folder: one archive has the rows of one exchange in one unit.'
  rejectOtherExchange(`The files in ${store.name}`, marked.source, source, fix)
  rejectOtherTimeUnit(`The files in ${store.name}`, marked.timeUnit, timeUnit, fix)
}

/** @throws TapelineError `ARCHIVE` if it has none */
export async function requireMark(store: ObjectStore): Promise<ExchangeIdentity> {
  const mark = await readMark(store)
  if (mark !== null) return mark
  if (await store.isEmpty())
    throw new TapelineError('ARCHIVE', `Nothing is archived in ${store.name} yet`, {
      fix: 'Start `bin/tapeline archive` with this ARCHIVE_URL, or set ARCHIVE_URL to the folder of an archive.',
    })
  // It may have been marked between the two looks.
  const late = await readMark(store)
  if (late !== null) return late
  throw notAnArchive(store, 'Set ARCHIVE_URL to the folder of an archive.')
}

/** Returns null if there is none. @throws TapelineError `ARCHIVE` for an archive of another version */
async function readMark(store: ObjectStore): Promise<ExchangeIdentity | null> {
  const bytes = await store.read(ARCHIVE_MARK_KEY)
  if (bytes === null) return null
  const { success, data } = META.safeParse(parseJson(bytes.toString()))
  if (success) return { source: data.source, timeUnit: data.timeUnit }
  throw new TapelineError(
    'ARCHIVE',
    `${store.name} has a ${ARCHIVE_MARK_KEY} that this program cannot read`,
    {
      fix: 'Use the version of Tapeline that wrote it, or another ARCHIVE_URL.',
    },
  )
}

function notAnArchive({ name }: ObjectStore, fix: string): TapelineError {
  return new TapelineError('ARCHIVE', `${name} has files and is not an archive of Tapeline`, { fix })
}
