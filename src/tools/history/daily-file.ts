import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { createInterface } from 'node:readline'
import { pipeline } from 'node:stream/promises'
import { crc32 } from 'node:zlib'
import { type Entry, openPromise, type ZipFile } from 'yauzl'
import { isSymbol } from '../../foundation/market/fields.ts'
import { describeError, TapelineError } from '../../foundation/runtime/errors.ts'

/**
 * The exchange's daily files of trades: `BTCUSDT-trades-2026-01-31.zip`, with one CSV file inside.
 * Source: the README of github.com/binance/binance-public-data.
 */
export const DAILY_KINDS = { trades: 'trade', aggTrades: 'aggTrade' } as const

export type DailyType = (typeof DAILY_KINDS)[keyof typeof DAILY_KINDS]

export interface DailyFile {
  readonly path: string
  /** The name without the folder. */
  readonly name: string
  readonly symbol: string
  readonly type: DailyType
  /** UTC, like `2026-01-31`. */
  readonly date: string
}

const NAME = /^(?<symbol>[^-]+)-(?<kind>trades|aggTrades)-(?<date>\d{4}-\d\d-\d\d)\.zip$/u

/** @throws TapelineError `INPUT` if the name is not that of a daily file */
export function dailyFile(path: string): DailyFile {
  const name = basename(path)
  const { symbol, kind, date } = NAME.exec(name)?.groups ?? {}
  const isDate = date !== undefined && new Date(`${date}T00:00:00Z`).toJSON()?.startsWith(date) === true
  if (!isSymbol(symbol) || (kind !== 'trades' && kind !== 'aggTrades') || date === undefined || !isDate) {
    throw new TapelineError('INPUT', `${path} does not have the name of a daily file`, {
      fix: 'Keep the name of the download, like BTCUSDT-trades-2026-01-31.zip or BTCUSDT-aggTrades-2026-01-31.zip.',
    })
  }
  return { path, name, symbol, type: DAILY_KINDS[kind], date }
}

/** A file that cannot be read to its end. What was read before is no evidence. */
export class DamagedFileError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, { cause })
    this.name = 'DamagedFileError'
  }
}

/**
 * Compares the file with its `.CHECKSUM`, which has the SHA-256 and the name.
 *
 * @returns `absent` without a checksum file
 */
export async function checksumOf({ path, name }: DailyFile): Promise<'matches' | 'differs' | 'absent'> {
  const text = await readFile(`${path}.CHECKSUM`, 'utf8').catch((error: unknown) => {
    if (Reflect.get(Object(error), 'code') === 'ENOENT') return null
    throw error
  })
  if (text === null) return 'absent'
  const [expected, of] = text.trim().split(/\s+\*?/)
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return expected?.toLowerCase() === hash.digest('hex') && (of === undefined || of === name)
    ? 'matches'
    : 'differs'
}

/**
 * Yields the lines of the CSV file.
 *
 * @throws DamagedFileError if the zip is truncated or its content does not have its CRC-32
 */
export async function* linesOf({ path, name }: DailyFile): AsyncGenerator<string> {
  const zip = await openZip(path)
  try {
    const entry = await onlyEntry(zip, name.replace(/\.zip$/, '.csv'))
    let crc = 0
    const content = await zip.openReadStreamPromise(entry).catch((error: unknown) => {
      throw damaged(error)
    })
    content.on('data', (chunk: Buffer) => {
      crc = crc32(chunk, crc)
    })
    try {
      yield* createInterface({ input: content, crlfDelay: Number.POSITIVE_INFINITY })
    } catch (error) {
      throw damaged(error)
    }
    if (crc !== entry.crc32) throw new DamagedFileError('the content does not match its CRC-32')
  } finally {
    zip.close()
  }
}

async function openZip(path: string): Promise<ZipFile> {
  try {
    return await openPromise(path, { lazyEntries: true, autoClose: false })
  } catch (error) {
    const isFile = Reflect.get(Object(error), 'syscall') === undefined
    if (isFile) throw damaged(error)
    throw new TapelineError('INPUT', `${path} cannot be read: ${describeError(error)}`, {
      fix: 'Check the path and its permissions.',
      cause: error,
    })
  }
}

async function onlyEntry(zip: ZipFile, expected: string): Promise<Entry> {
  const entries: Entry[] = []
  try {
    for await (const entry of zip.eachEntry()) entries.push(entry)
  } catch (error) {
    throw damaged(error)
  }
  const [entry, ...others] = entries
  if (entry === undefined || others.length > 0 || entry.fileName !== expected)
    throw new DamagedFileError(
      `it contains ${entries.map(({ fileName }) => fileName).join(', ') || 'nothing'} instead of ${expected}`,
    )
  return entry
}

function damaged(error: unknown): DamagedFileError {
  return new DamagedFileError(`the zip file is damaged: ${describeError(error)}`, error)
}
