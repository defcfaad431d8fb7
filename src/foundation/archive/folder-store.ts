import { randomUUID } from 'node:crypto'
import { dirname, join, resolve } from 'node:path'
import { codeOf, nullIfMissing } from '../runtime/errors.ts'
import { prepareError, writeError } from './folder-error.ts'
import { type LocalFiles, localFiles } from './local-files.ts'
import type { ObjectStore } from './object-store.ts'

/** Files that are not complete. */
const STAGING = '_staging'

/** The root of a volume has it, and it is not ours to read. */
const LOST_AND_FOUND = 'lost+found'

/** No process writes a file for this long. */
const STALE_MS = 86_400_000

/**
 * A store in a folder. Files appear whole: they are written under another name, synced, and then
 * linked or renamed; the folder is synced after it.
 */
export function openFolderStore(path: string, files: LocalFiles = localFiles): ObjectStore {
  const folder = resolve(path)
  const stagingFolder = join(folder, STAGING)
  const pathOf = (key: string) => join(folder, key)
  const durable = new Set<string>([folder])
  /** Syncs every folder on the way: a process that created one may have ended before it synced it. */
  const makeFolder = async (path: string) => {
    if (durable.has(path)) return
    await files.makeFolder(path)
    for (let one = path; one.length > folder.length; one = dirname(one)) await files.syncFolder(dirname(one))
    durable.add(path)
  }
  /** Gives a file its final name, durably. */
  const place = async (target: string, name: () => Promise<void>) => {
    await makeFolder(dirname(target))
    try {
      await name()
    } catch (error) {
      // An operator may have removed the folder.
      durable.delete(dirname(target))
      throw error
    }
    await files.syncFolder(dirname(target))
  }
  const filesIn = async (under: string): Promise<string[]> => {
    const entries = await nullIfMissing(files.entries(pathOf(under)))
    const found = await Promise.all(
      (entries ?? []).map(({ name, isFolder }) =>
        isFolder ? filesIn(`${under}/${name}`) : [`${under}/${name}`],
      ),
    )
    return found.flat()
  }
  /** Names the fix in errors of the work. */
  const writing = <Result>(work: () => Promise<Result>, named = writeError): Promise<Result> =>
    work().catch((error: unknown) => {
      throw named(error, path)
    })
  const prepare = async () => {
    await files.makeFolder(stagingFolder)
    // It may have been there before, without the right to write.
    const probe = join(stagingFolder, randomUUID())
    await files.createSynced(probe, new Uint8Array())
    await files.remove(probe)
    await syncParent(folder, files)
    await files.syncFolder(folder)
  }
  const create = async (key: string, bytes: Uint8Array) => {
    const staged = join(stagingFolder, randomUUID())
    const target = pathOf(key)
    try {
      await files.createSynced(staged, bytes)
      await place(target, () => files.link(staged, target))
      return true
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error
      // The one that created it may have been killed before it synced the folder.
      await files.syncFolder(dirname(target))
      return (await files.read(target)).equals(bytes)
    } finally {
      await files.remove(staged)
    }
  }
  const putFile: ObjectStore['putFile'] = async (key, write) => {
    const staged = join(stagingFolder, `${randomUUID()}.parquet`)
    const target = pathOf(key)
    try {
      await write(staged)
      const hash = await files.hash(staged)
      await files.syncFile(staged)
      await place(target, () => files.rename(staged, target))
      return hash
    } finally {
      await files.remove(staged)
    }
  }
  return {
    name: path,
    stagingFolder,
    prepare: () => writing(prepare, prepareError),
    create: (key, bytes) => writing(() => create(key, bytes)),
    putFile: (key, write) => writing(() => putFile(key, write)),
    async read(key) {
      return nullIfMissing(files.read(pathOf(key)))
    },
    async list(under, after = '') {
      return (await filesIn(under)).filter((key) => key > after).sort()
    },
    async folders(under) {
      const entries = await nullIfMissing(files.entries(pathOf(under)))
      const names = (entries ?? []).flatMap(({ name, isFolder }) => (isFolder ? [name] : []))
      return names.filter((name) => name !== LOST_AND_FOUND).sort()
    },
    async isEmpty() {
      return (await files.entries(folder)).every(({ name }) => name === STAGING || name === LOST_AND_FOUND)
    },
    remove: (key) => writing(() => files.remove(pathOf(key))),
    async removeStale(nowMs) {
      for (const { name } of await files.entries(stagingFolder)) {
        const staged = join(stagingFolder, name)
        const changedAtMs = (await nullIfMissing(files.changedAtMs(staged))) ?? nowMs
        if (nowMs - changedAtMs > STALE_MS) await files.remove(staged)
      }
    },
    localCopy: async (key) => pathOf(key),
    release: async () => {},
    close: async () => {},
  }
}

/** Makes the archive's own name durable, unless its parent is not ours to read. */
async function syncParent(folder: string, files: LocalFiles): Promise<void> {
  try {
    await files.syncFolder(dirname(folder))
  } catch (error) {
    if (codeOf(error) !== 'EACCES' && codeOf(error) !== 'EPERM') throw error
  }
}
