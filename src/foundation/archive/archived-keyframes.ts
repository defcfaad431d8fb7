import { createHash } from 'node:crypto'
import { z } from 'zod'
import type { Anchor, AnchorKey } from '../order-book/book-rows.ts'
import { LevelColumns, packColumns } from '../order-book/level-columns.ts'
import { describeError, isTapelineError, TapelineError } from '../runtime/errors.ts'
import { parseJson } from '../runtime/outside-text.ts'
import { padded } from './commit-chain.ts'
import type { ObjectStore } from './object-store.ts'

/*
 * Keyframes are order books that were rebuilt from the rows of an archive. Reading a book begins at one
 * instead of at a snapshot of the exchange hours before. They are no rows: without them the same books are read,
 * in more time.
 */

/** Their folder, with one for each symbol. */
export const KEYFRAMES = '_keyframes'

const EPOCH_DIGITS = 4
const ID_DIGITS = 16
/** Digits of the SHA-256 in a name. */
const HASH_DIGITS = 16

const id = z.int().min(0)

const KEYFRAME = z.object({
  format: z.literal(1),
  symbol: z.string(),
  epoch: id,
  lastUpdateId: id,
  receivedUs: id,
  derivedFrom: z.object({ epoch: id, lastUpdateId: id, receivedUs: id }),
  bidHorizon: z.string().nullable(),
  askHorizon: z.string().nullable(),
  /** Packed as in the database, in Base64. */
  bids: z.base64(),
  asks: z.base64(),
})

/** A keyframe by its name. Times are microseconds since the Unix epoch. */
export interface KeyframeName {
  readonly key: string
  readonly epoch: number
  readonly lastUpdateId: number
  /** `lastUpdateId` of the snapshot that it was derived from. */
  readonly snapshotId: number
  /** The event time of the last diff. */
  readonly eventTimeUs: number
  readonly receivedUs: number
}

/**
 * Returns the keyframes of a symbol in the order of their ids.
 *
 * @param after only those of this epoch, with higher ids
 */
export async function keyframesOf(
  store: ObjectStore,
  symbol: string,
  after: Pick<Anchor, 'epoch' | 'lastUpdateId'> | null = null,
): Promise<KeyframeName[]> {
  const folder = folderOf(symbol)
  // Above all names with this id.
  const from = after === null ? undefined : `${folder}/${placeOf(after)}-~`
  const names = (await store.list(folder, from)).flatMap(nameOf)
  return after === null ? names : names.filter(({ epoch }) => epoch === after.epoch)
}

/** @param eventTimeUs of the last diff */
export async function storeKeyframe(
  store: ObjectStore,
  symbol: string,
  keyframe: Anchor,
  eventTimeUs: number,
): Promise<void> {
  const { epoch, lastUpdateId, receivedUs, derivedFrom, bidHorizon, askHorizon, bids, asks } = keyframe
  if (derivedFrom === null) throw new Error('A snapshot of the exchange is no keyframe')
  const content = {
    ...{ format: 1, symbol, epoch, lastUpdateId, receivedUs, derivedFrom, bidHorizon, askHorizon },
    bids: Buffer.from(packColumns(bids)).toString('base64'),
    asks: Buffer.from(packColumns(asks)).toString('base64'),
  } satisfies z.input<typeof KEYFRAME>
  const bytes = Buffer.from(`${JSON.stringify(content)}\n`)
  const place = [beginOf(keyframe, derivedFrom), eventTimeUs, receivedUs]
  await store.create(`${folderOf(symbol)}/${place.join('-')}-${hashOf(bytes)}.json`, bytes)
}

/** Returns null if it is gone or damaged: then an older keyframe or a snapshot leads to the same book. */
export async function readKeyframe(store: ObjectStore, { key }: KeyframeName): Promise<Anchor | null> {
  const bytes = await store.read(key)
  try {
    return bytes === null ? null : parseKeyframe(key, bytes)
  } catch (error) {
    // `archive check` names it.
    if (isTapelineError(error, 'ARCHIVE')) return null
    throw error
  }
}

/** @throws TapelineError `ARCHIVE` if it is damaged */
export function parseKeyframe(key: string, bytes: Buffer): Anchor {
  try {
    if (!key.endsWith(`-${hashOf(bytes)}.json`)) throw new Error('its content is not that of its name')
    const { format: _, symbol, bids, asks, ...keyframe } = KEYFRAME.parse(parseJson(bytes.toString()))
    if (!key.startsWith(`${folderOf(symbol)}/${beginOf(keyframe, keyframe.derivedFrom)}-`))
      throw new Error('it is that of another book')
    return { ...keyframe, bids: unpacked(bids), asks: unpacked(asks) }
  } catch (error) {
    throw new TapelineError('ARCHIVE', `The archive is damaged at ${key}: ${describeError(error)}`, {
      cause: error,
      fix: 'Remove the file: a keyframe only makes reading faster.',
    })
  }
}

function unpacked(base64: string): LevelColumns {
  const columns = new LevelColumns()
  columns.read(Buffer.from(base64, 'base64'))
  return columns
}

function nameOf(key: string): KeyframeName[] {
  const numbers = /^([\d-]+)-[\da-f]+\.json$/
    .exec(key.split('/').at(-1) ?? '')?.[1]
    ?.split('-')
    .map(Number)
  const [epoch, lastUpdateId, snapshotId, eventTimeUs, receivedUs] = numbers ?? []
  if (
    epoch === undefined ||
    lastUpdateId === undefined ||
    snapshotId === undefined ||
    eventTimeUs === undefined ||
    receivedUs === undefined
  )
    return []
  return [{ key, epoch, lastUpdateId, snapshotId, eventTimeUs, receivedUs }]
}

/** A symbol has only letters, digits and `_`. Percent-encoded, 40 letters could be too long for a folder's name. */
function folderOf(symbol: string): string {
  return `${KEYFRAMES}/${symbol}`
}

function placeOf({ epoch, lastUpdateId }: Pick<Anchor, 'epoch' | 'lastUpdateId'>): string {
  return `${padded(epoch, EPOCH_DIGITS)}-${padded(lastUpdateId, ID_DIGITS)}`
}

/** Returns how the name of a keyframe begins. */
function beginOf(keyframe: Pick<Anchor, 'epoch' | 'lastUpdateId'>, snapshot: AnchorKey): string {
  return `${placeOf(keyframe)}-${padded(snapshot.lastUpdateId, ID_DIGITS)}`
}

function hashOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, HASH_DIGITS)
}
