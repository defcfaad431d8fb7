import { mkdirSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { codeOf } from './errors.ts'

/**
 * Creates a folder and those above it, if they are missing. Node's recursive `mkdir` never returns in `/proc`, and
 * reports `ENOENT` for a read-only disk.
 *
 * @param mode permissions of the folders that it creates
 * @throws the error of the file system
 */
export function makeFolder(path: string, mode?: number): void {
  const folder = resolve(path)
  if (made(folder, mode)) return
  makeFolder(dirname(folder), mode)
  // Another process may have created it meanwhile.
  if (!made(folder, mode)) mkdirSync(folder, mode)
}

/** Returns false if the folder above is missing. */
function made(folder: string, mode?: number): boolean {
  try {
    mkdirSync(folder, mode)
    return true
  } catch (error) {
    const code = codeOf(error)
    if (code === 'EEXIST' && statSync(folder).isDirectory()) return true
    if (code === 'ENOENT' && dirname(folder) !== folder) return false
    throw error
  }
}
