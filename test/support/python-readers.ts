import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { promisify } from 'node:util'
import { pythonWith } from './python.ts'

const run = promisify(execFile)
const PAGE = resolve(import.meta.dirname, '..', '..', 'docs', 'researchers.md')
const READERS = ['polars==2.1.0', 'duckdb==2.0.1', 'pandas==3.1.1', 'pyarrow==26.0.1']

/** The same for tests, which install nothing without TAPELINE_TEST_READERS=1. */
export async function pythonWithReaders(): Promise<string | { skip: string }> {
  if (process.env['TAPELINE_TEST_READERS'] !== '1')
    return { skip: 'TAPELINE_TEST_READERS=1 runs it; pip downloads 300 MB first' }
  return installedReaders()
}

/**
 * A Python with readers of Parquet files, which the first call installs into the cache.
 * @returns the interpreter, or why there is none
 */
export async function installedReaders(): Promise<string | { skip: string }> {
  return pythonWith('readers', READERS)
}

/** The Python examples of a section of the page for researchers, in order. */
export function examplesOf(section: string): string[] {
  const sections = readFileSync(PAGE, 'utf8').split(/^## /m)
  const text = sections.find((one) => one.startsWith(`${section}\n`)) ?? ''
  return [...text.matchAll(/^```python\n([\s\S]*?)^```/gm)].map(([, code = '']) => code)
}

/** Runs a program, and returns its last line. */
export async function lastLine(interpreter: string, code: string, cwd: string): Promise<string> {
  const { stdout } = await run(interpreter, ['-c', code], { cwd, timeout: 60_000 })
  return stdout.trimEnd().split('\n').at(-1) ?? ''
}
