import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chown, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { isOwned, markFolder, markIn } from './process-tree.ts'
import { insideRoot, serverEnvironment, type TimescaleRoot } from './timescaledb-root.ts'

/** Data, log, password and owner of one server, inside the changed root. */
export interface DataFolder {
  /** Path inside the changed root. */
  readonly inner: string
  /** Path as seen by this process. */
  readonly outer: string
}

const RUNS = '/var/lib/tapeline'
const KEEP = 'keep'

/** Returns the paths for this name. Creates nothing. */
export function dataFolder(root: TimescaleRoot, name: string): DataFolder {
  const inner = `${RUNS}/${name}`
  return { inner, outer: join(root.path, inner) }
}

/** Creates the database cluster if there is none. @returns the superuser's password */
export async function prepareData(root: TimescaleRoot, folder: DataFolder, keep: boolean): Promise<string> {
  const passwordFile = join(folder.outer, 'password')
  if (existsSync(join(folder.outer, 'data', 'PG_VERSION'))) {
    await markOwner(folder, keep)
    return await readFile(passwordFile, 'utf8')
  }
  const password = randomBytes(16).toString('hex')
  await makeFolder(root, folder, keep)
  await writeOwned(root, passwordFile, password)
  const files = [`--pgdata=${folder.inner}/data`, `--pwfile=${folder.inner}/password`]
  const format = ['--username=postgres', '--auth=scram-sha-256', '--encoding=UTF8', '--locale=C.UTF-8']
  const fast = ['--no-sync', '--no-instructions']
  const [command, ...args] = insideRoot(root, 'initdb', [...files, ...format, ...fast])
  await promisify(execFile)(command, args, { env: serverEnvironment(), timeout: 60_000 })
  return password
}

/** Creates the folder for the user postgres, with this process's mark. */
export async function makeFolder(root: TimescaleRoot, folder: DataFolder, keep: boolean): Promise<void> {
  await mkdir(folder.outer, { recursive: true, mode: 0o700 })
  await markOwner(folder, keep)
  await chown(folder.outer, root.uid, root.gid)
}

/** Writes a file that only the user postgres can read. */
export async function writeOwned(root: TimescaleRoot, file: string, content: string): Promise<void> {
  await writeFile(file, content, { mode: 0o600 })
  await chown(file, root.uid, root.gid)
}

async function markOwner(folder: DataFolder, keep: boolean): Promise<void> {
  markFolder(folder.outer)
  if (keep) await writeFile(join(folder.outer, KEEP), '')
}

/** Removes the data of killed runs, except data to be kept. */
export async function removeAbandonedData(root: TimescaleRoot): Promise<void> {
  const runs = join(root.path, RUNS)
  await mkdir(runs, { recursive: true, mode: 0o755 })
  for (const name of await readdir(runs)) {
    const folder = join(runs, name)
    const mark = markIn(folder)
    // Without a mark, another process may be creating the folder.
    if (mark === '' || isOwned(mark) || existsSync(join(folder, KEEP))) continue
    await rm(folder, { recursive: true, force: true })
  }
}
