import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { link, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { codeOf } from '../runtime/errors.ts'

/** Calls of a file system, with the durability that POSIX gives them: nothing is durable before its sync. */
export interface LocalFiles {
  /** Creates a file and syncs it. The name is durable when its folder is synced. */
  createSynced(path: string, bytes: Uint8Array): Promise<void>
  /** Syncs a file that another program has written. */
  syncFile(path: string): Promise<void>
  /** Makes the names in a folder durable. */
  syncFolder(path: string): Promise<void>
  /** Gives a file a second name. @throws `EEXIST` if there is one */
  link(path: string, second: string): Promise<void>
  rename(path: string, to: string): Promise<void>
  /** Creates a folder and those above it. */
  makeFolder(path: string): Promise<void>
  /** @throws `ENOENT` if there is no such folder */
  entries(folder: string): Promise<Array<{ readonly name: string; readonly isFolder: boolean }>>
  /** @throws `ENOENT` if there is no such file */
  read(path: string): Promise<Buffer>
  /** Returns the SHA-256 of a file in hexadecimal, and its size. */
  hash(path: string): Promise<{ readonly sha256: string; readonly bytes: number }>
  /** Milliseconds since the Unix epoch. */
  changedAtMs(path: string): Promise<number>
  /** Removes a file or folder, if it exists. */
  remove(path: string): Promise<void>
}

export const localFiles: LocalFiles = {
  async createSynced(path, bytes) {
    await using file = await open(path, 'wx')
    await file.writeFile(bytes)
    await file.sync()
  },
  async syncFile(path) {
    await using file = await open(path, 'r+')
    await file.sync()
  },
  async syncFolder(path) {
    await using folder = await open(path, 'r')
    await folder.sync()
  },
  link,
  rename,
  makeFolder: (path) => makeFolder(path),
  async entries(folder) {
    const entries = await readdir(folder, { withFileTypes: true })
    return entries.map((entry) => ({ name: entry.name, isFolder: entry.isDirectory() }))
  },
  read: (path) => readFile(path),
  async hash(path) {
    const hash = createHash('sha256')
    let bytes = 0
    await pipeline(createReadStream(path), async (chunks: AsyncIterable<Buffer>) => {
      for await (const chunk of chunks) {
        hash.update(chunk)
        bytes += chunk.length
      }
    })
    return { sha256: hash.digest('hex'), bytes }
  },
  async changedAtMs(path) {
    return (await stat(path)).mtimeMs
  },
  async remove(path) {
    await rm(path, { force: true, recursive: true })
  },
}

/**
 * Node's recursive `mkdir` never returns in `/proc`, and reports `ENOENT` for a read-only disk.
 *
 * @param isAgain the folder above exists now
 */
async function makeFolder(path: string, isAgain = false): Promise<void> {
  try {
    await mkdir(path)
  } catch (error) {
    const code = codeOf(error)
    if (code === 'EEXIST') return
    const above = dirname(path)
    if (code !== 'ENOENT' || isAgain || above === path) throw error
    await makeFolder(above)
    await makeFolder(path, true)
  }
}
