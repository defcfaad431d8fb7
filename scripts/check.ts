/** `npm run check`: runs every static check, even after a failure. Exits with 1 if any failed. */
import { spawn } from 'node:child_process'
import { resolve } from 'node:path'
import { describeError } from '../src/foundation/runtime/errors.ts'
import { staleFiles } from './generate.ts'
import { checkTrackedFiles } from './tracked-files.ts'
import { bannedPhrases } from './wording.ts'

const ROOT = resolve(import.meta.dirname, '..')

/** In CI Biome colours its output even when it is not a terminal. */
const COLORS = process.stdout.isTTY ? [] : ['--colors=off']

/** @returns whether the check passed; it has printed its findings */
type Check = () => Promise<boolean> | boolean

const CHECKS: Record<string, Check> = {
  'Types (tsc)': () => command('node_modules/typescript/bin/tsc', ['-p', 'tsconfig.json']),
  "Types of the dashboard's page (tsc)": () =>
    command('node_modules/typescript/bin/tsc', ['-p', 'src/tools/dashboard/page']),
  'Format and lint (biome)': () =>
    command('node_modules/@biomejs/biome/bin/biome', ['ci', '--error-on-warnings', ...COLORS, '.']),
  'Unused code (knip)': () => command('node_modules/knip/bin/knip.js', []),
  'Generated files (scripts/generate.ts)': async () =>
    hasNone(await staleFiles(), 'scripts/with-node scripts/generate.ts'),
  'Plain English': () => hasNone(bannedPhrases(), 'CONTRIBUTING.md section 8'),
  'Tracked files': () => checkTrackedFiles(ROOT),
}

function hasNone(findings: readonly string[], fix: string): boolean {
  for (const finding of findings) console.log(`${finding} (${fix})`)
  return findings.length === 0
}

/** Runs a script of node_modules on the Node that runs this check. */
function command(script: string, args: readonly string[]): Promise<boolean> {
  return new Promise((done, reject) => {
    const child = spawn(process.execPath, [script, ...args], { cwd: ROOT, stdio: 'inherit' })
    child.once('error', reject)
    child.once('exit', (code) => done(code === 0))
  })
}

const failed: string[] = []
for (const [title, check] of Object.entries(CHECKS)) {
  const startedMs = performance.now()
  console.log(`\n${title}`)
  const passed = await Promise.resolve()
    .then(check)
    .catch((error: unknown) => {
      console.log(describeError(error))
      return false
    })
  if (!passed) failed.push(title)
  console.log(`${passed ? 'passed' : 'FAILED'} in ${((performance.now() - startedMs) / 1000).toFixed(1)} s`)
}
console.log(failed.length === 0 ? '\nAll checks passed' : `\nFailed: ${failed.join(', ')}`)
process.exitCode = failed.length === 0 ? 0 : 1
