import { randomUUID } from 'node:crypto'
import { link, mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { ObjectStore } from './object-store.ts'

/** Files that are not complete. A process removes its own. */
const STAGING = '_staging'

/**
 * A store in a folder. Files appear whole: they are written under another name, synced, and then
 * linked or renamed; the folder is synced after it.
 */
export function openFolderStore(folder: string): ObjectStore {
  const stagingFolder = join(folder, STAGING)
  const pathOf = (key: string) => join(folder, key)
  return {
    name: folder,
    stagingFolder,
    prepare: () => makeFolder(stagingFolder),
    async create(key, bytes) {
      const staged = join(stagingFolder, randomUUID())
      try {
        await writeSynced(staged, bytes)
        await makeFolder(dirname(pathOf(key)))
        await link(staged, pathOf(key))
      } catch (error) {
        if (codeOf(error) !== 'EEXIST') throw error
        // The one that created it may have been killed before it synced the folder.
        await syncFolder(dirname(pathOf(key)))
        return (await readFile(pathOf(key))).equals(bytes)
      } finally {
        await rm(staged, { force: true })
      }
      await syncFolder(dirname(pathOf(key)))
      return true
    },
    async putFile(key, stagedPath) {
      const path = pathOf(key)
      await syncFile(stagedPath)
      await makeFolder(dirname(path))
      await rename(stagedPath, path)
      await syncFolder(dirname(path))
    },
    async read(key) {
      return orNull(readFile(pathOf(key)))
    },
    async list(under, after = '') {
      const entries = await orNull(readdir(pathOf(under), { recursive: true, withFileTypes: true }))
      const keys = (entries ?? [])
        .filter((entry) => entry.isFile())
        .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1))
      return keys.filter((key) => key > after).sort()
    },
    async folders(under) {
      const entries = await orNull(readdir(pathOf(under), { withFileTypes: true }))
      return (entries ?? []).flatMap((entry) => (entry.isDirectory() ? [entry.name] : [])).sort()
    },
    async isEmpty() {
      return (await readdir(folder)).every((name) => name === STAGING)
    },
    async remove(key) {
      await rm(pathOf(key), { force: true })
    },
    localCopy: async (key) => pathOf(key),
    release: async () => {},
    close: async () => {},
  }
}

async function writeSynced(path: string, bytes: Uint8Array): Promise<void> {
  const file = await open(path, 'wx')
  try {
    await file.writeFile(bytes)
    await file.sync()
  } finally {
    await file.close()
  }
}

async function syncFile(path: string): Promise<void> {
  const file = await open(path, 'r+')
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}

/** Creates a folder and those above it, and syncs each new one's parent. */
async function makeFolder(path: string): Promise<void> {
  const first = await mkdir(path, { recursive: true })
  if (first === undefined) return
  for (let one = path; one.length >= first.length; one = dirname(one)) await syncFolder(dirname(one))
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

async function orNull<Result>(work: Promise<Result>): Promise<Result | null> {
  try {
    return await work
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null
    throw error
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error ? Reflect.get(error, 'code') : undefined
}
