import { readFileSync, renameSync, writeFileSync } from 'node:fs'

/**
 * Writes a file that only this user can read. The write is atomic: after a kill the previous
 * content remains.
 */
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
