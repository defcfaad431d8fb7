import { spawnSync } from 'node:child_process'
import { mkdirSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import type { Closers } from '../src/foundation/telemetry/service.ts'
import { freePort } from '../src/sandbox/processes/free-ports.ts'
import { launchService } from './launch.ts'
import type { PartProcess, SupervisedPart } from './part.ts'

/** A file system of the archive's own, which can be made full. */
export interface SmallDisk {
  fill(): void
  empty(): void
}

interface ArchiveStage {
  readonly folder: string
  readonly parts: readonly SupervisedPart[]
  /** One for each of the two processes. */
  readonly urls: readonly string[]
  /** Null if this machine cannot mount one. */
  readonly disk: SmallDisk | null
}

interface Place {
  readonly folder: string
  readonly logsDir: string
  readonly closers: Closers
  readonly env: NodeJS.ProcessEnv
  readonly say: (text: string) => void
  readonly supervised: (label: string, launch: () => Promise<PartProcess>) => SupervisedPart
}

/** Rows are written every second, so that a fault strikes each step of a commit. */
const FLUSH_MS = '1000'
const DISK_SIZE = '2g'
const RESIZE_ATTEMPTS = 20

/** Prepares two archives of one group, which divide the partitions and take over from each other. */
export async function layOutArchive(place: Place): Promise<ArchiveStage> {
  const { logsDir, env, closers, say, supervised } = place
  const folder = join(place.folder, 'archive')
  mkdirSync(folder)
  const disk = mountDisk(folder, closers)
  if (disk === null) say('no full disks of the archive: this machine cannot mount a file system')
  const ports = [await freePort(), await freePort()]
  const parts = ports.map((port, i) => {
    const own = {
      ...env,
      ARCHIVE_PORT: String(port),
      ARCHIVE_URL: folder,
      ARCHIVE_FLUSH_INTERVAL_MS: FLUSH_MS,
    }
    const label = `archive ${i + 1}`
    return supervised(label, () => launchService('archive', own, join(logsDir, `archive-${i + 1}.log`)))
  })
  return { folder, parts, urls: ports.map((port) => `http://127.0.0.1:${port}`), disk }
}

/** A file system in memory takes no room while it is full: its size is what is used. */
function mountDisk(folder: string, closers: Closers): SmallDisk | null {
  const mount = (...args: string[]) => spawnSync('mount', args).status === 0
  if (process.getuid?.() !== 0 || !mount('-t', 'tmpfs', '-o', `size=${DISK_SIZE}`, 'tmpfs', folder))
    return null
  closers.add('disk of the archive', () => void spawnSync('umount', ['--lazy', folder]))
  const resize = (sizeOf: () => string) => {
    // The archive writes meanwhile, and a size below what is used is refused.
    for (let attempt = 0; attempt < RESIZE_ATTEMPTS; attempt++)
      if (mount('-o', `remount,size=${sizeOf()}`, folder)) return
    throw new Error(`The file system at ${folder} cannot be resized`)
  }
  return {
    fill: () =>
      resize(() => {
        const { blocks, bfree, bsize } = statfsSync(folder)
        return String((blocks - bfree) * bsize)
      }),
    empty: () => resize(() => DISK_SIZE),
  }
}
