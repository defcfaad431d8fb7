import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sleep } from '../../src/foundation/runtime/backoff.ts'
import { ownIdentity } from '../../src/sandbox/processes/process-identity.ts'
import { isOwned, markFolder, markIn, processesWithVariable, signalIfRunning } from './process-tree.ts'

/** Inherited by every process of a run, to find them all. Its value is the run's identity. */
export const MARK = 'TAPELINE_TEST_RUN'
const FOLDER_PREFIX = 'tapeline-test-'

export type TestRun = Awaited<ReturnType<typeof beginTestRun>>

/**
 * Marks this process as a test run, and cleans up after killed runs: processes and folders with the
 * mark of a run whose process is gone. Running ones are left alone.
 */
export async function beginTestRun(onProgress: (message: string) => void) {
  const mark = JSON.stringify(ownIdentity())
  process.env[MARK] = mark

  const abandoned = await killMarked((value) => value !== mark && !isOwned(value), 0)
  for (const command of abandoned) onProgress(`ended a process of an earlier run: ${command}`)
  for (const name of readdirSync(tmpdir())) {
    const folder = join(tmpdir(), name)
    if (name.startsWith(FOLDER_PREFIX) && !isOwned(markIn(folder)))
      rmSync(folder, { recursive: true, force: true })
  }

  const folder = join(tmpdir(), `${FOLDER_PREFIX}${process.pid}`)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  markFolder(folder)
  return {
    /** Folder for the run's files; removed with it. */
    folder,
    /**
     * Waits `graceMs` for processes of this run to exit, then kills the rest, and removes the
     * folder. @returns the commands of the killed processes
     */
    async end(graceMs: number) {
      const killed = await killMarked((value) => value === mark, graceMs)
      rmSync(folder, { recursive: true, force: true })
      return killed
    },
  }
}

/** Kills the processes that still have such a mark after `graceMs`. @returns their commands */
async function killMarked(concerns: (mark: string) => boolean, graceMs: number): Promise<string[]> {
  const isOther = ({ pid }: { pid: number }) => pid !== process.pid
  const find = () =>
    processesWithVariable(MARK).filter(({ identity, value }) => isOther(identity) && concerns(value))
  const deadline = performance.now() + graceMs
  while (performance.now() < deadline && find().length > 0) {
    await sleep(100)
  }
  const killed: string[] = []
  // Repeatedly: a process may have started another one before it was killed.
  for (let found = find(); found.length > 0; found = find()) {
    for (const one of found) if (signalIfRunning(one.identity, 'SIGKILL')) killed.push(one.command)
    await sleep(50)
  }
  return killed
}
