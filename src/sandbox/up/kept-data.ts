import { existsSync, readdirSync } from 'node:fs'
import { readdir, rm, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { ARCHIVE_MARK_KEY } from '../../foundation/archive/archive-mark.ts'
import { folderInUse, lockFolder, lockHolder } from '../processes/folder-lock.ts'
import { cleanUpLeftOvers } from '../processes/process-registry.ts'

/** The unit of `stat`. Sizes are those on disk, since Kafka preallocates files. */
const BLOCK_BYTES = 512

/** A directory in DATA_DIR: a source's data, or the cache. */
export interface KeptData {
  readonly name: string
  readonly path: string
  readonly bytes: number
  /** The process that uses it now; null when there is none. */
  readonly heldBy: number | null
}

/** Lists the data of `up` in DATA_DIR, with sizes. Other files are ignored. */
export async function listKeptData(dataDir: string): Promise<KeptData[]> {
  const root = resolve(dataDir)
  if (!existsSync(root)) return []
  const entries = await readdir(root, { withFileTypes: true })
  const ours = entries.filter((entry) => entry.isDirectory() && isOurs(entry.name))
  return Promise.all(
    ours.map(async ({ name }) => {
      const path = join(root, name)
      return { name, path, bytes: await sizeOf(path), heldBy: lockHolder(path) }
    }),
  )
}

/** Lists the archives that `up --archive` has written below DATA_DIR. */
export function keptArchives(dataDir: string): string[] {
  if (!existsSync(dataDir)) return []
  const folders = readdirSync(dataDir).map((name) => join(dataDir, name, 'archive'))
  return folders.filter((folder) => existsSync(join(folder, ARCHIVE_MARK_KEY))).sort()
}

/** Removes a directory and its processes. @throws TapelineError `ENVIRONMENT` while `up` uses it */
export async function removeKeptData(kept: KeptData): Promise<void> {
  const unlock = lockFolder(kept.path, inUseFix)
  try {
    await cleanUpLeftOvers(join(kept.path, 'run'))
    await rm(kept.path, { recursive: true, force: true })
  } finally {
    unlock()
  }
}

/** @throws TapelineError `ENVIRONMENT` when a running `up` uses one of them */
export function refuseHeld(kept: readonly KeptData[]): void {
  for (const { path, heldBy } of kept) if (heldBy !== null) throw folderInUse(path, heldBy, inUseFix(heldBy))
}

function inUseFix(pid: number): string {
  return `Stop it first (Ctrl-C in its terminal, or kill ${pid}).`
}

function isOurs(name: string): boolean {
  return name === 'cache' || /^(binance|simulated|replay|exchange)(-|$)/.test(name)
}

async function sizeOf(path: string): Promise<number> {
  const entries = await readdir(path, { withFileTypes: true, recursive: true })
  const sizes = entries
    .filter((entry) => entry.isFile())
    .map((entry) =>
      stat(join(entry.parentPath, entry.name)).then(({ blocks }) => blocks * BLOCK_BYTES, ignoreGone),
    )
  return (await Promise.all(sizes)).reduce((total, size) => total + size, 0)
}

/** A running process may remove files during the count. */
function ignoreGone(error: unknown): number {
  if (Reflect.get(Object(error), 'code') === 'ENOENT') return 0
  throw error
}
