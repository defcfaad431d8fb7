import { readFileSync, renameSync, writeFileSync } from 'node:fs'

/** Writes a file for this user only, whole or not at all: a kill in between leaves the one before. */
export function writeJson(path: string, value: unknown): void {
  const next = `${path}.new`
  writeFileSync(next, `${JSON.stringify(value)}\n`, { mode: 0o600 })
  renameSync(next, path)
}

/** What the file holds; null when it is missing, or was not written by `writeJson`. */
export function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    // Nothing is known from such a file, which is what null says.
    return null
  }
}
