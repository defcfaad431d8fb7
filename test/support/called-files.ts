import { readdirSync, readFileSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = resolve(import.meta.dirname, '../..')

/** The coverage of one process, as V8 reports it. */
interface Coverage {
  readonly result: ReadonlyArray<{
    readonly url: string
    readonly functions: ReadonlyArray<{
      readonly functionName: string
      /** The first range is the whole function. */
      readonly ranges: ReadonlyArray<{ readonly count: number }>
    }>
  }>
}

/**
 * Returns the files of `src` that have a function called at least so often, with the functions
 * and their calls. A process counts the calls if it runs with `NODE_V8_COVERAGE` set
 * to the folder, and writes them when it exits.
 */
export function calledFiles(folder: string, atLeast: number): Map<string, Map<string, number>> {
  const files = new Map<string, Map<string, number>>()
  for (const name of readdirSync(folder)) {
    const { result }: Coverage = JSON.parse(readFileSync(join(folder, name), 'utf8'))
    for (const { url, functions } of result) {
      const file = url.startsWith('file:') ? relative(ROOT, fileURLToPath(url)) : ''
      if (!file.startsWith('src/')) continue
      for (const { functionName, ranges } of functions) {
        const count = ranges[0]?.count ?? 0
        if (count < atLeast) continue
        const called = files.get(file) ?? new Map<string, number>()
        files.set(file, called.set(functionName, Math.max(count, called.get(functionName) ?? 0)))
      }
    }
  }
  return files
}

/**
 * Returns the file names of a list in `docs/architecture.md`: those in backticks at the beginning of
 * its items.
 */
export function listedFiles(heading: string): string[] {
  const text = readFileSync(join(ROOT, 'docs/architecture.md'), 'utf8')
  const [, section = ''] = text.split(new RegExp(`^## ${heading}$`, 'm'))
  const [list = ''] = section.split(/^## /m)
  return [...list.matchAll(/^\d+\. `([^`]+\.ts)`/gm)].map(([, file = '']) => file)
}
