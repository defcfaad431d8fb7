import { randomUUID } from 'node:crypto'
import { z } from 'zod'
import { TapelineError } from '../runtime/errors.ts'
import { parseJson } from '../runtime/outside-text.ts'
import { DAY_MANIFEST } from './day-manifest.ts'
import type { ObjectStore } from './object-store.ts'

/*
 * The files of a published day and table. A day is published as a whole; each later change is a
 * list with the next number, created only if absent. The newest list counts. Rows of records after
 * its `through` are in segments.
 */

const POINT = z.object({ incarnation: z.int().min(0), offset: z.int().min(0) })

const STORED_FILE = z.object({
  key: z.string(),
  rows: z.int().min(1),
  bytes: z.int().min(1),
  sha256: z.string(),
})

export type StoredFile = z.infer<typeof STORED_FILE>

const DAY_FILE = STORED_FILE.extend({
  /** The first and last symbol in it; no other file of the list has one in between. */
  firstSymbol: z.string(),
  lastSymbol: z.string(),
})

export type DayFile = z.infer<typeof DAY_FILE>

/** The order of symbols in files: that of their bytes, as in the engine. JavaScript has another one. */
export function compareSymbols(one: string, other: string): number {
  return Buffer.compare(Buffer.from(one), Buffer.from(other))
}

/** Whether a file may have rows of a symbol. */
export function isInFile({ firstSymbol, lastSymbol }: DayFile, symbol: string): boolean {
  return compareSymbols(symbol, firstSymbol) >= 0 && compareSymbols(symbol, lastSymbol) <= 0
}

const DAY_LIST = z.object({
  format: z.literal(1),
  table: z.string(),
  date: z.iso.date(),
  number: z.int().min(1),
  /** Milliseconds since the Unix epoch. */
  publishedAt: z.int(),
  /** In the order of their symbols. */
  files: z.array(DAY_FILE),
  /** By the path of a chain: everything before this point is in the files. */
  through: z.record(z.string(), POINT),
  /** Rows of segments that repeated a row, and were left out. */
  duplicates: z.int().min(0),
  /** Some of these, whose content is not that of the row that stayed. They are kept in these files. */
  conflicts: z.array(STORED_FILE),
  ...DAY_MANIFEST,
})

export type DayList = z.infer<typeof DAY_LIST>

const LISTS = '_days'

/** Has the rows that published rows contradict, by table and day. */
export const CONFLICTS = '_conflicts'

const NUMBER_DIGITS = 8

/** Returns the newest list of a table and day; null before the day is published. */
export async function newestDayList(
  store: ObjectStore,
  table: string,
  date: string,
): Promise<DayList | null> {
  const key = (await dayListKeys(store, table, date)).at(-1)
  return key === undefined ? null : readDayList(store, key)
}

/** Returns the keys of all lists of a table and day, the newest last. */
export function dayListKeys(store: ObjectStore, table: string, date: string): Promise<string[]> {
  return store.list(`${LISTS}/${table}/${date}`)
}

/** Returns the key of the newest list of each published day of a table, by day. */
export async function newestDayListKeys(store: ObjectStore, table: string): Promise<Map<string, string>> {
  const keys = await store.list(`${LISTS}/${table}`)
  return new Map(keys.map((key) => [key.split('/')[2] ?? '', key]))
}

/** @throws TapelineError `ARCHIVE` if it is damaged */
export async function readDayList(store: ObjectStore, key: string): Promise<DayList> {
  const bytes = await store.read(key)
  const parsed = DAY_LIST.safeParse(parseJson(bytes?.toString() ?? ''))
  if (parsed.success) return parsed.data
  throw new TapelineError('ARCHIVE', `The archive is damaged at ${key}: it is not a list of files`, {
    fix: 'Restore the file from a copy of the archive.',
  })
}

/** Returns the days of a table that are published, in order. */
export function publishedDates(store: ObjectStore, table: string): Promise<string[]> {
  return store.folders(`${LISTS}/${table}`)
}

/** Returns the newest day of any table that has a list; null without one. */
export async function newestPublishedDay(store: ObjectStore): Promise<string | null> {
  const tables = await store.folders(LISTS)
  const newest = await Promise.all(
    tables.map(async (table) => (await store.folders(`${LISTS}/${table}`)).at(-1)),
  )
  return (
    newest
      .flatMap((date) => date ?? [])
      .sort()
      .at(-1) ?? null
  )
}

export function dayListKey({ table, date, number }: Pick<DayList, 'table' | 'date' | 'number'>): string {
  return `${LISTS}/${table}/${date}/${padded(number)}.json`
}

/**
 * Publishes a list. After an error it may or may not be there: its files must stay.
 *
 * @returns false if another process has published this number
 */
export async function createDayList(store: ObjectStore, list: Omit<DayList, 'format'>): Promise<boolean> {
  const key = dayListKey(list)
  const bytes = Buffer.from(`${JSON.stringify({ format: 1, ...list })}\n`)
  if (await store.create(key, bytes)) return true
  // A store may have created it and failed to answer.
  return (await store.read(key))?.equals(bytes) === true
}

/** Returns a key for a new file of the list with this number. @param folder see {@link dayFolder} */
export function dayFileKey(folder: string, number: number): string {
  return `${folder}/${padded(number)}-${randomUUID()}.parquet`
}

/** Returns the number of the list that a file was written for; later lists may have it too. */
export function listNumberOf(key: string): number {
  return Number(/\/(\d+)-[^/]*$/.exec(key)?.[1])
}

function padded(number: number): string {
  return String(number).padStart(NUMBER_DIGITS, '0')
}

/** Where the files of a published day are; the name follows Hive's partitions, which readers know. */
export function dayFolder(table: string, date: string): string {
  return `${table}/date=${date}`
}

/** Where the rows are that a published row of the day contradicts. */
export function conflictFolder(table: string, date: string): string {
  return `${CONFLICTS}/${table}/${date}`
}
