import { readFileSync } from 'node:fs'
import { descendantsOf } from '../test/support/process-tree.ts'

/**
 * Returns the resident memory of a process and its children in bytes. Shared memory counts once:
 * the sum of anonymous pages and files of each process, plus the largest shared size. 0 without
 * /proc or without such a process.
 */
export function residentBytes(pid: number): number {
  let own = 0
  let shared = 0
  for (const one of [pid, ...descendantsOf(pid).map((child) => child.pid)]) {
    const status = readStatus(one)
    const kilobytes = (name: string) =>
      Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1] ?? 0)
    own += kilobytes('RssAnon') + kilobytes('RssFile')
    shared = Math.max(shared, kilobytes('RssShmem'))
  }
  return (own + shared) * 1024
}

function readStatus(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/status`, 'utf8')
  } catch {
    return '' // It exited in the meantime.
  }
}
