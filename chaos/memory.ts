import { readFileSync } from 'node:fs'
import { descendantsOf } from '../test/support/process-tree.ts'

/**
 * Resident memory of a process and its children in bytes. What several share is counted once: anonymous pages and files
 * of each, and of shared memory the largest share. 0 where there is no /proc or no such process.
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
    return '' // It has ended in the meantime.
  }
}
