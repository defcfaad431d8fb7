import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { CACHE_DIRECTORY } from './bounded-run.ts'

const run = promisify(execFile)
const INSTALL_LIMIT_MS = 300_000

/**
 * Returns a Python interpreter that has these packages. The first call installs them into the cache.
 *
 * @param packages with exact versions
 * @returns why there is none, if pip cannot install them
 */
export async function pythonWith(
  name: string,
  packages: readonly string[],
): Promise<string | { readonly skip: string }> {
  const folder = join(CACHE_DIRECTORY, `${name}-${packages.join('-')}`)
  const program = (path: string) => join(path, 'bin', 'python')
  if (existsSync(program(folder))) return program(folder)
  let partial: string | null = null
  try {
    partial = mkdtempSync(`${folder}.partial-`)
    await run('python3', ['-m', 'venv', '--copies', partial], { timeout: INSTALL_LIMIT_MS })
    await run(program(partial), ['-m', 'pip', 'install', '--quiet', ...packages], {
      timeout: INSTALL_LIMIT_MS,
    })
    // Another run may have been faster.
    if (!existsSync(program(folder))) renameSync(partial, folder)
    return program(folder)
  } catch (error) {
    return { skip: `${packages.join()} cannot be installed: ${String(error).split('\n')[0]}` }
  } finally {
    if (partial !== null) rmSync(partial, { recursive: true, force: true })
  }
}
