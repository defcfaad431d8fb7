import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { relative } from 'node:path'
import { fileURLToPath } from 'node:url'

/** Writes a file that only this user can read, atomically: after a kill the previous one remains. */
export function writeJson(path: string, value: unknown): void {
  const next = `${path}.new`
  writeFileSync(next, `${JSON.stringify(value)}\n`, { mode: 0o600 })
  renameSync(next, path)
}

/** The content of the file; null when it is missing, or was not written by `writeJson`. */
export function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    // Null means that nothing is known.
    return null
  }
}

/** Renames the log of the previous run to `.1`; the next log begins empty. */
export function rotateLog(path: string): void {
  if (existsSync(path)) renameSync(path, `${path}.1`)
}

/** A path relative to this directory if it is inside, otherwise unchanged. */
export function displayPath(path: string): string {
  const fromHere = relative(process.cwd(), path)
  if (fromHere === '') return '.'
  return fromHere.startsWith('..') ? path : fromHere
}

/** Extension of modules: `.ts` in a checkout, `.js` in a package. */
const EXTENSION = import.meta.url.endsWith('.ts') ? '.ts' : '.js'

/** The file of the command line, used to run a command as a process. */
export const COMMAND_LINE = moduleFile('../../cli/main')

export const EMBEDDED_DATABASE = moduleFile('../embedded-timescaledb/embedded-database-main')

/** Preloaded into every Node child. Stops the child when this process ends. */
export const STOP_WITH_PARENT = new URL(`./stop-with-parent${EXTENSION}`, import.meta.url).href

function moduleFile(name: string): string {
  return fileURLToPath(new URL(`${name}${EXTENSION}`, import.meta.url))
}
