import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
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
const CHECKSUM = '.CHECKSUM'
const EXAMPLES = 'BTCUSDT-trades-2026-01-31.zip or BTCUSDT-aggTrades-2026-01-31.zip'

/** @throws TapelineError `INPUT` if the name is not that of a daily file */
export function dailyFile(path: string): DailyFile {
  const file = named(path)
  if (file !== null) return file
  throw new TapelineError('INPUT', `${path} does not have the name of a daily file`, {
    fix: `Keep the name of the download, like ${EXAMPLES}.`,
  })
}

function named(path: string): DailyFile | null {
  const name = basename(path)
  const { symbol, kind, date } = NAME.exec(name)?.groups ?? {}
  const isDate = date !== undefined && new Date(`${date}T00:00:00Z`).toJSON()?.startsWith(date) === true
  if (!isSymbol(symbol) || (kind !== 'trades' && kind !== 'aggTrades') || date === undefined || !isDate)
    return null
  return { path, name, symbol, type: DAILY_KINDS[kind], date }
}

/**
 * Returns the files, and all daily files in folders, in the order of symbol, type and day.
 *
 * @throws TapelineError `INPUT` for a path that cannot be read, another name, an empty folder, or a day that is given twice
 */
export async function dailyFiles(paths: readonly string[]): Promise<DailyFile[]> {
  const found: DailyFile[] = []
  // A shell's pattern may match the checksums, too.
  for (const path of paths.filter((one) => !one.endsWith(CHECKSUM))) {
    const stats = await stat(path).catch((error: unknown) => {
      throw unreadable(path, error)
    })
    const inside = stats.isDirectory() ? await inFolder(path) : [dailyFile(path)]
    found.push(...inside)
  }
  found.sort((one, other) => (keyOf(one) < keyOf(other) ? -1 : 1))
  const twice = found.find((one, i) => i > 0 && keyOf(one) === keyOf(found[i - 1] ?? one))
  if (twice !== undefined)
    throw new TapelineError('INPUT', `${twice.name} is given twice`, { fix: 'Give each day once.' })
  return found
}

function keyOf({ symbol, type, date }: DailyFile): string {
  return `${symbol} ${type === 'trade' ? 0 : 1} ${date}`
}

async function inFolder(path: string): Promise<DailyFile[]> {
  const files = (await readdir(path)).flatMap((name) => named(join(path, name)) ?? [])
  if (files.length > 0) return files
  throw new TapelineError('INPUT', `${path} has no daily files`, { fix: `Their names are like ${EXAMPLES}.` })
}

export type Checksum = 'matches' | 'differs' | 'absent'

/**
 * Compares the file with its `.CHECKSUM`, which has the SHA-256 and the name.
 *
 * @returns `absent` without a checksum file
 * @throws TapelineError `INPUT` if the file cannot be read
 */
export async function checksumOf({ path, name }: DailyFile): Promise<Checksum> {
  const text = await readFile(`${path}${CHECKSUM}`, 'utf8').catch((error: unknown) => {
    if (Reflect.get(Object(error), 'code') === 'ENOENT') return null
    throw error
  })
  if (text === null) return 'absent'
  const [expected, of] = text.trim().split(/\s+\*?/)
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash).catch((error: unknown) => {
    throw unreadable(path, error)
  })
  return expected?.toLowerCase() === hash.digest('hex') && (of === undefined || of === name)
    ? 'matches'
    : 'differs'
}

export function unreadable(path: string, error: unknown): TapelineError {
  return new TapelineError('INPUT', `${path} cannot be read: ${describeError(error)}`, {
    fix: 'Check the path and its permissions.',
    cause: error,
  })
}
