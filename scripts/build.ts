/**
 * `npm run build`: compiles to JavaScript with declarations in dist/, as the published package runs
 * it.
 */
import { spawnSync } from 'node:child_process'
import { copyFileSync, globSync, mkdirSync, rmSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'

const ROOT = resolve(import.meta.dirname, '..')
/** Another folder can be given as the first argument. */
const OUT = resolve(process.argv[2] ?? join(ROOT, 'dist'))
/** Files read at run time, from the folder of the module that reads them. */
const ASSETS = 'src/**/*.{sql,html,css,svg}'

rmSync(OUT, { recursive: true, force: true })
compile('-p', 'tsconfig.build.json', '--outDir', OUT)
// For the browser: other libraries, the same output.
compile(
  ...['-p', 'src/tools/dashboard/page', '--noEmit', 'false', '--rewriteRelativeImportExtensions'],
  ...['--rootDir', 'src', '--outDir', OUT],
)

for (const asset of globSync(ASSETS, { cwd: ROOT })) {
  const target = join(OUT, asset.replace(/^src\//, ''))
  mkdirSync(dirname(target), { recursive: true })
  copyFileSync(join(ROOT, asset), target)
}

function compile(...args: string[]): void {
  const tsc = spawnSync(process.execPath, ['node_modules/typescript/bin/tsc', ...args], {
    cwd: ROOT,
    stdio: 'inherit',
  })
  if (tsc.status !== 0) process.exit(tsc.status ?? 1)
}
