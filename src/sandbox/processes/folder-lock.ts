import { randomBytes } from 'node:crypto'
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describeError, TapelineError } from '../../foundation/runtime/errors.ts'
import { makeFolder } from '../../foundation/runtime/folders.ts'
import { parseJson } from '../../foundation/runtime/outside-text.ts'
import { displayPath } from './files.ts'
import { isIdentity, isRunning, ownIdentity, type ProcessIdentity } from './process-identity.ts'

const LOCK_FILE = 'lock'
/** In each round another process took or released the lock; after a few, something is wrong. */
const ROUNDS = 5

/**
 * Makes this process the only user of a folder until it unlocks it or ends. A dead process's lock
 * is taken.
 * @param fix for the user when another process holds it @returns unlocks the folder
 * @throws TapelineError `ENVIRONMENT` naming that process
 */
export function lockFolder(
  folder: string,
  fix = (pid: number) => `Stop it (kill ${pid}), or set DATA_DIR to another directory.`,
): () => void {
  try {
    makeFolder(folder)
  } catch (error) {
    const text = `${displayPath(folder)} is not a folder and cannot be created: ${describeError(error)}`
    throw new TapelineError('ENVIRONMENT', text, { fix: 'Set DATA_DIR to another directory.', cause: error })
  }
  const path = join(folder, LOCK_FILE)
  const mine = `${path}.${process.pid}.${randomBytes(4).toString('hex')}`
  const text = JSON.stringify(ownIdentity())
  writeFileSync(mine, text)
  try {
    for (let round = 0; round < ROUNDS; round++) {
      if (linked(mine, path)) return () => releaseOwn(path, text)
      const pid = lockHolder(folder)
      if (pid !== null) throw folderInUse(folder, pid, fix(pid))
      removeStale(path, `${mine}.stale`)
    }
    const changing = `The lock of ${displayPath(folder)} changes hands too fast`
    throw new TapelineError('ENVIRONMENT', changing, { fix: 'Retry.' })
  } finally {
    rmSync(mine, { force: true })
  }
}

export function folderInUse(folder: string, pid: number, fix: string): TapelineError {
  return new TapelineError('ENVIRONMENT', `${displayPath(folder)} is in use by process ${pid}`, { fix })
}

/** The pid of the running process that has locked a folder; null when there is none. */
export function lockHolder(folder: string): number | null {
  return runningHolder(join(folder, LOCK_FILE))?.pid ?? null
}

/** Creating a hard link is atomic and never replaces an existing file. */
function linked(from: string, to: string): boolean {
  try {
    linkSync(from, to)
    return true
  } catch (error) {
    if (Reflect.get(Object(error), 'code') === 'EEXIST') return false
    throw error
  }
}

/** Moves the lock of a dead process aside; restores it if another one took it in the meantime. */
function removeStale(path: string, aside: string): void {
  try {
    renameSync(path, aside)
  } catch (error) {
    if (Reflect.get(Object(error), 'code') === 'ENOENT') return
    throw error
  }
  if (runningHolder(aside) !== null) linked(aside, path)
  rmSync(aside, { force: true })
}

function releaseOwn(path: string, text: string): void {
  if (readIfThere(path) === text) rmSync(path, { force: true })
}

function readIfThere(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (Reflect.get(Object(error), 'code') === 'ENOENT') return null
    throw error
  }
}

function runningHolder(path: string): ProcessIdentity | null {
  // Nobody holds an incomplete lock.
  const holder = parseJson(readIfThere(path) ?? '')
  return isIdentity(holder) && isRunning(holder) ? holder : null
}
