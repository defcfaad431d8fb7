import { mkdirSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { codeOf } from './errors.ts'

/**
 * Creates a folder and those above it, if they are missing. Node's recursive `mkdir` never returns in `/proc`, and
 * reports `ENOENT` for a read-only disk.
 *
 * @param mode permissions of the folder itself, if it is created
 * @throws the error of the file system
 */
export function makeFolder(path: string, mode?: number): void {
  try {
    mkdirSync(path, mode)
  } catch (error) {
    const code = codeOf(error)
    if (code === 'EEXIST' && statSync(path).isDirectory()) return
    const above = dirname(path)
    if (code !== 'ENOENT' || above === path) throw error
    makeFolder(above)
    mkdirSync(path, mode)
  }
}
