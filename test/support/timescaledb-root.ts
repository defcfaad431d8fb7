import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isOwned, markFolder, markIn } from './process-tree.ts'

/** The folder of the pinned system's files, and its `postgres` user. */
export interface TimescaleRoot {
  /** The folder to `chroot` into. */
  readonly path: string
  readonly uid: number
  readonly gid: number
}

const NAME = 'timescaledb-pgbouncer-trixie'
const PARTIAL = '.partial-'
const POSTGRES_BIN = '/usr/lib/postgresql/17/bin'

/**
 * Ensures that the cache has a small Debian 13 with PostgreSQL 17, TimescaleDB 2.19 (Apache part)
 * and PgBouncer. `debootstrap` installs it once, in about 40 s and 700 MB.
 *
 * @returns the folder, or why this machine cannot have it; it does not throw for missing
 * requirements
 */
export async function ensureTimescaleRoot({
  cacheDir,
  onProgress,
}: {
  cacheDir: string
  onProgress: (message: string) => void
}): Promise<TimescaleRoot | { skip: string }> {
  if (process.platform !== 'linux') return { skip: `debootstrap needs Linux, this is ${process.platform}` }
  if (process.getuid?.() !== 0) return { skip: 'debootstrap and chroot need root' }
  const path = join(cacheDir, NAME)
  if (!existsSync(path)) {
    const failure = (await installDebootstrap(onProgress)) ?? (await build(cacheDir, path, onProgress))
    if (failure !== undefined) return { skip: failure }
  }
  return { path, ...(await postgresUser(path)) }
}

/** The root in the cache of the test run. @throws an error if this machine cannot have it */
export async function requireTimescaleRoot(): Promise<TimescaleRoot> {
  const cacheDir = process.env['TAPELINE_CACHE_DIR'] ?? tmpdir()
  const root = await ensureTimescaleRoot({ cacheDir, onProgress: () => {} })
  if ('skip' in root) throw new Error(root.skip)
  return root
}

/**
 * Runs `chroot`, then the user postgres, then a parent-death signal, in this order: changing the
 * user clears the signal. Each step replaces the previous one, so the pid is the server's.
 *
 * @param program one of PostgreSQL's, or an absolute path
 */
export function insideRoot(
  root: TimescaleRoot,
  program: string,
  args: string[],
): [command: string, ...args: string[]] {
  const user = ['--reuid=postgres', '--regid=postgres', '--init-groups', '--pdeathsig=INT']
  const path = program.startsWith('/') ? program : `${POSTGRES_BIN}/${program}`
  return ['/usr/sbin/chroot', root.path, '/usr/bin/setpriv', ...user, '--', path, ...args]
}

/** Excludes the caller's variables (PGDATA, PGPORT, LANG of a missing locale) from the server. */
export function serverEnvironment(): NodeJS.ProcessEnv {
  return { PATH: `${POSTGRES_BIN}:/usr/sbin:/usr/bin:/sbin:/bin`, LC_ALL: 'C.UTF-8', TZ: 'UTC' }
}

/** @returns why it cannot be installed; undefined if it is there */
async function installDebootstrap(onProgress: (message: string) => void): Promise<string | undefined> {
  if (onPath('debootstrap')) return undefined
  if (!onPath('apt-get')) return 'debootstrap is missing and there is no apt-get to install it'
  onProgress('installing debootstrap with apt-get')
  const wait = ['-o', 'DPkg::Lock::Timeout=120', '-o', 'Acquire::Retries=3']
  return (
    (await run('apt-get', [...wait, 'update', '-qq'])) ??
    (await run('apt-get', [...wait, 'install', '-y', '-qq', '--no-install-recommends', 'debootstrap']))
  )
}

/** @returns why it failed; undefined if `path` is complete */
async function build(
  cacheDir: string,
  path: string,
  onProgress: (message: string) => void,
): Promise<string | undefined> {
  await mkdir(cacheDir, { recursive: true })
  await removeAbandoned(cacheDir)
  const partial = `${path}${PARTIAL}${process.pid}`
  const root = join(partial, 'root')
  await mkdir(partial)
  markFolder(partial)
  onProgress(
    `installing PostgreSQL 17 with TimescaleDB and PgBouncer into ${path} (first time only, about 40 s)`,
  )
  try {
    // In separate mount and process namespaces, which the kernel removes with this process however
    // it ends: debootstrap mounts /proc and /sys in the new system, and a leftover mount would
    // persist.
    const isolation = ['--mount', '--pid', '--fork', '--kill-child', '--propagation', 'private', '--']
    const options = ['--variant=minbase', '--include=postgresql-17-timescaledb,pgbouncer']
    const debootstrap = ['debootstrap', ...options, 'trixie', root]
    const failure = await run('setpriv', ['--pdeathsig', 'KILL', 'unshare', ...isolation, ...debootstrap])
    if (failure !== undefined) return failure
    for (const unused of ['var/cache/apt/archives', 'var/lib/postgresql/17', 'etc/postgresql/17']) {
      await rm(join(root, unused), { recursive: true, force: true })
    }
    await rename(root, path)
  } catch (error) {
    if (!existsSync(path)) throw error // Otherwise another process was faster, and its copy is as good.
  } finally {
    await rm(partial, { recursive: true, force: true })
  }
  return undefined
}

/** Removes partial builds of killed runs. Nothing is mounted there, see `build`. */
async function removeAbandoned(cacheDir: string): Promise<void> {
  for (const entry of await readdir(cacheDir)) {
    if (!entry.startsWith(NAME + PARTIAL)) continue
    if (isOwned(markIn(join(cacheDir, entry)))) continue
    await rm(join(cacheDir, entry), { recursive: true, force: true })
  }
}

async function postgresUser(root: string): Promise<{ uid: number; gid: number }> {
  const passwd = await readFile(join(root, 'etc/passwd'), 'utf8')
  const fields = passwd
    .split('\n')
    .find((line) => line.startsWith('postgres:'))
    ?.split(':')
  if (fields === undefined) throw new Error(`${root} has no user postgres; remove that folder and try again`)
  return { uid: Number(fields[2]), gid: Number(fields[3]) }
}

function onPath(command: string): boolean {
  const folders = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin']
  return folders.some((folder) => existsSync(join(folder, command)))
}

/** @returns the error with the command's last output; undefined if it succeeded */
function run(command: string, args: string[]): Promise<string | undefined> {
  return new Promise((resolve) => {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' }
    const path = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`
    const child = spawn(command, args, { env: { ...env, PATH: path }, stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    const keepTail = (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-2000)
    }
    child.stdout.on('data', keepTail)
    child.stderr.on('data', keepTail)
    child.on('error', (error) => resolve(`${command}: ${error.message}`))
    child.on('close', (code, signal) => {
      const lastWords = output.trim().split('\n').slice(-3).join(' / ')
      const failure = `${[command, ...args].join(' ')} ended with ${signal ?? code}: ${lastWords}`
      resolve(code === 0 ? undefined : failure)
    })
  })
}
