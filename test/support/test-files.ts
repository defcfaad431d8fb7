import { readFileSync, statSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'

/** The servers that a test file needs. */
export interface Needs {
  readonly kafka: boolean
  readonly database: boolean
}

/** Simulate hundreds of virtual hours. */
const SIMULATIONS = /-simulation\.test\.ts$/
/** Start three brokers, use PgBouncer or a bucket of S3, or compare every value: only in full runs and by name. */
const LONG = /-(three-brokers|pooled|s3|archived)\.test\.ts$/
/** Matches a line that starts a process, or a server with a process. */
const STARTS =
  /^(?:import|\}).*['"](?:node:child_process|.*\/sandbox\/(?:kafka-broker|embedded-timescaledb)\/.*)['"]$/m

/** Returns the files that need no Kafka, database or other process, without the simulations. */
export function unitFiles(files: readonly string[], root: string): string[] {
  return files.filter((file) => {
    const { kafka, database } = needsOf([file], root)
    const starts = (reached: string) => STARTS.test(readFileSync(reached, 'utf8'))
    return !(kafka || database || SIMULATIONS.test(file) || [...reachedBy([file], root)].some(starts))
  })
}

/** Returns the test files whose path contains one of the names; those of every run without any. */
export function selectTestFiles(files: readonly string[], names: readonly string[]): string[] {
  if (names.length === 0) return files.filter((file) => !LONG.test(file))
  return files.filter((file) => names.some((name) => file.includes(name.replace(/^\.\//, ''))))
}

/**
 * A file needs the servers of its imports from `test/support`, direct or through other test files:
 * a unit test starts nothing that only another file needs.
 */
export function needsOf(files: readonly string[], root: string): Needs {
  const reached = reachedBy(files, root)
  const has = (name: string) => reached.has(join(root, 'test', 'support', name))
  return { kafka: has('kafka.ts'), database: has('database.ts') }
}

/** Returns these files and their direct and indirect imports within the tests, as absolute paths. */
function reachedBy(files: readonly string[], root: string): Set<string> {
  const reached = new Set<string>()
  const pending = files.map((file) => resolve(root, file))
  for (let file = pending.pop(); file !== undefined; file = pending.pop()) {
    if (reached.has(file) || statSync(file, { throwIfNoEntry: false })?.isFile() !== true) continue
    reached.add(file)
    for (const imported of importsOf(file)) {
      if (!relative(join(root, 'test'), imported).startsWith('..')) pending.push(imported)
    }
  }
  return reached
}

/** Files of relative imports, static or dynamic, as absolute paths. */
export function importsOf(file: string): string[] {
  const source = readFileSync(file, 'utf8')
  const imports = /(?:^(?:import|export|\}).*|\bimport\()['"](\.{1,2}\/[^'"]+)['"]/gm
  return [...source.matchAll(imports)].flatMap((match) =>
    match[1] === undefined ? [] : [resolve(dirname(file), match[1])],
  )
}
