import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

interface Rule {
  readonly what: string
  readonly pattern: RegExp
  /** Pattern of the paths that the rule applies to; all files if absent. */
  readonly files?: RegExp
}

const RULES: readonly Rule[] = [
  {
    what: 'names the host of a package registry; leave it to the client’s configuration',
    pattern: /https?:\/\/(?:registry|repo1?|npm|proxy|pypi)\.[\w-]+\.\w+|"resolve[d]":/,
  },
  {
    what: 'names a folder of one machine; make it relative',
    pattern: /(?<![\w.~$}-])\/(?:root|home\/\w+|Users\/\w+)\//,
  },
  {
    what: 'leaves something to be done; do it, or open an issue',
    pattern: /\b(?:TO[D]O|FIX[M]E)\b/,
    files: /\.(?:md|ts)$/,
  },
]

/**
 * Reports texts that no file of the repository may contain. Prints each finding as `file:line:
 * what`.
 *
 * @returns whether there was none
 */
export function checkTrackedFiles(root: string): boolean {
  let clean = true
  for (const file of trackedFiles(root)) {
    for (const { line, what } of findingsIn(file, readFileSync(join(root, file), 'utf8'))) {
      console.log(`${file}:${line}: ${what}`)
      clean = false
    }
  }
  return clean
}

export function findingsIn(file: string, text: string): Array<{ line: number; what: string }> {
  const rules = RULES.filter(({ files }) => files === undefined || files.test(file))
  return text.split('\n').flatMap((content, index) => {
    const broken = rules.filter(({ pattern }) => pattern.test(content))
    return broken.map(({ what }) => ({ line: index + 1, what }))
  })
}

/**
 * Lists files that are tracked or about to be, without ignored ones; paths relative to the root.
 */
export function trackedFiles(root: string): string[] {
  const args = ['ls-files', '-z', '--cached', '--others', '--exclude-standard']
  const listed = execFileSync('git', args, { cwd: root, encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 })
  // A file that is deleted but not yet committed is still listed.
  return listed.split('\0').filter((file) => file !== '' && existsSync(join(root, file)))
}
