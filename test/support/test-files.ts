import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'

/** What a test file needs running beside it. */
export interface Needs {
  readonly kafka: boolean
  readonly database: boolean
}

/**
 * The test files whose path contains one of the names; all of them when no name is given. A file name given in
 * whole, as a shell completes it, matches too.
 */
export function selectTestFiles(files: readonly string[], names: readonly string[]): string[] {
  if (names.length === 0) return [...files]
  return files.filter((file) => names.some((name) => file.includes(name.replace(/^\.\//, ''))))
}

/**
 * A file needs what it imports from `test/support`, itself or through another file of the tests: a unit test starts
 * nothing because another file would need it.
 */
export function needsOf(files: readonly string[], root: string): Needs {
  const reached = new Set<string>()
  const pending = files.map((file) => resolve(root, file))
  for (let file = pending.pop(); file !== undefined; file = pending.pop()) {
    if (reached.has(file) || !existsSync(file)) continue
    reached.add(file)
    for (const imported of importsOf(file)) {
      if (!relative(join(root, 'test'), imported).startsWith('..')) pending.push(imported)
    }
  }
  const has = (name: string) => reached.has(join(root, 'test', 'support', name))
  return { kafka: has('kafka.ts'), database: has('database.ts') }
}

/** Files named by a relative import, static or dynamic, as absolute paths. */
export function importsOf(file: string): string[] {
  const source = readFileSync(file, 'utf8')
  const imports = /(?:^(?:import|export|\}).*|\bimport\()['"](\.{1,2}\/[^'"]+)['"]/gm
  return [...source.matchAll(imports)].flatMap((match) =>
    match[1] === undefined ? [] : [resolve(dirname(file), match[1])],
  )
}
