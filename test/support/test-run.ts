import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isIdentity, isRunning, ownIdentity } from '../../src/sandbox/processes/process-identity.ts'
import { processesWithVariable, signalIfRunning } from './process-tree.ts'

/** Inherited by every process of a run, so that none can be lost sight of. Its value is the run's identity. */
export const MARK = 'TAPELINE_TEST_RUN'
const FOLDER_PREFIX = 'tapeline-test-'
const OWNER = 'owner.json'

export interface TestRun {
  /** For whatever the run writes; removed with it. */
  readonly folder: string
  /**
   * Waits `graceMs` for processes of this run to end by themselves, then kills the rest, and removes the folder.
   *
   * @returns the commands of those that had to be killed
   */
  end(graceMs: number): Promise<string[]>
}

/**
 * Marks this process as a run of the tests, and clears away what runs that were killed have left: processes and
 * folders that carry the mark of a run whose own process is gone. Others that run now are left alone.
 */
export async function beginTestRun(onProgress: (message: string) => void): Promise<TestRun> {
  const mark = JSON.stringify(ownIdentity())
  process.env[MARK] = mark

  const abandoned = await killMarked((value) => value !== mark && !runs(value), 0)
  for (const command of abandoned) onProgress(`ended what an earlier run left behind: ${command}`)
  for (const name of readdirSync(tmpdir())) {
    const folder = join(tmpdir(), name)
    if (name.startsWith(FOLDER_PREFIX) && !runs(readOwner(folder)))
      rmSync(folder, { recursive: true, force: true })
  }

  const folder = join(tmpdir(), `${FOLDER_PREFIX}${process.pid}`)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  writeFileSync(join(folder, OWNER), mark)
  return {
    folder,
    async end(graceMs) {
      const killed = await killMarked((value) => value === mark, graceMs)
      rmSync(folder, { recursive: true, force: true })
      return killed
    },
  }
}

/** Whether the run with this mark still goes on; a text that is no mark belongs to no run. */
function runs(mark: string): boolean {
  try {
    const identity: unknown = JSON.parse(mark)
    return isIdentity(identity) && isRunning(identity)
  } catch {
    return false
  }
}

function readOwner(folder: string): string {
  try {
    return readFileSync(join(folder, OWNER), 'utf8')
  } catch {
    return ''
  }
}

/** Kills what still carries such a mark after `graceMs`. @returns the commands that were killed */
async function killMarked(concerns: (mark: string) => boolean, graceMs: number): Promise<string[]> {
  const find = () =>
    processesWithVariable(MARK).filter(
      ({ identity, value }) => identity.pid !== process.pid && concerns(value),
    )
  const deadline = performance.now() + graceMs
  while (performance.now() < deadline && find().length > 0) {
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  const killed: string[] = []
  // More than once: a process may have started another one before it was killed.
  for (let found = find(); found.length > 0; found = find()) {
    for (const one of found) if (signalIfRunning(one.identity, 'SIGKILL')) killed.push(one.command)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return killed
}
