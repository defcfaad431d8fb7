import { randomBytes } from 'node:crypto'
import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import { parseJson } from '../../foundation/runtime/outside-text.ts'
import { displayPath } from './files.ts'
import { isIdentity, isRunning, ownIdentity, type ProcessIdentity } from './process-identity.ts'

const LOCK_FILE = 'lock'
/**
 * In each round another process took or released the lock. More than a few rounds mean that
 * something else is wrong.
 */
const ROUNDS = 5

export interface FolderLock {
  release(): void
}

/**
 * Makes this process the only user of a folder until it releases the lock or ends. The lock of a
 * process that no longer runs is taken over.
 *
 * @param fix what the user can do when another process holds the lock
 * @throws TapelineError `ENVIRONMENT` naming the process that holds it
 */
export function lockFolder(folder: string, fix: (holder: ProcessIdentity) => string): FolderLock {
  mkdirSync(folder, { recursive: true })
  const path = join(folder, LOCK_FILE)
  const mine = `${path}.${process.pid}.${randomBytes(4).toString('hex')}`
  const text = JSON.stringify(ownIdentity())
  writeFileSync(mine, text)
  try {
    for (let round = 0; round < ROUNDS; round++) {
      if (linked(mine, path)) return { release: () => releaseOwn(path, text) }
      const holder = lockHolder(folder)
      if (holder !== null) {
        throw new TapelineError('ENVIRONMENT', `${displayPath(folder)} is in use by process ${holder.pid}`, {
          fix: fix(holder),
        })
      }
      removeStale(path, `${mine}.stale`)
    }
    throw new TapelineError('ENVIRONMENT', `The lock of ${displayPath(folder)} changes hands too fast`, {
      fix: 'Retry.',
    })
  } finally {
    rmSync(mine, { force: true })
  }
}

/** The running process that has locked a folder; null when there is none. */
export function lockHolder(folder: string): ProcessIdentity | null {
  const holder = parse(readIfThere(join(folder, LOCK_FILE)))
  return holder !== null && isRunning(holder) ? holder : null
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

/**
 * Moves the lock of a dead process aside. If another process took the lock between reading and
 * moving, its lock is restored.
 */
function removeStale(path: string, aside: string): void {
  try {
    renameSync(path, aside)
  } catch (error) {
    if (Reflect.get(Object(error), 'code') === 'ENOENT') return
    throw error
  }
  const moved = parse(readIfThere(aside))
  if (moved !== null && isRunning(moved)) linked(aside, path)
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

function parse(text: string | null): ProcessIdentity | null {
  // Nobody holds an incomplete lock.
  const value = text === null ? null : parseJson(text)
  return isIdentity(value) ? value : null
}
