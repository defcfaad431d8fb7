import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

const MAIN = resolve(import.meta.dirname, '../../chaos/main.ts')
/** Limit for a run; its waits have limits too. */
const LIMIT_MS = 300_000
/** For a test of a whole run. */
export const CHAOS_TIMEOUT = { timeout: LIMIT_MS + 30_000 }

/** Runs chaos as a process. @returns its exit code and output */
export async function chaos(
  args: string,
  onOutput: (output: string, stop: () => void) => void = () => {},
): Promise<{ code: number; output: string }> {
  const child = spawn(process.execPath, [MAIN, ...args.split(' ')], { stdio: ['ignore', 'pipe', 'pipe'] })
  const limit = setTimeout(() => child.kill('SIGTERM'), LIMIT_MS)
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
      onOutput(output, () => child.kill('SIGTERM'))
    })
  }
  try {
    const [code] = await once(child, 'close')
    return { code, output }
  } finally {
    clearTimeout(limit)
  }
}

/** A run that finds no violation. @returns its output, and what it wrote with `--json` */
export async function cleanChaos(args: string) {
  const json = join(mkdtempSync(join(tmpdir(), 'chaos-')), 'result.json')
  const { code, output } = await chaos(`${args} --json ${json}`)
  assert.equal(code, 0, output)
  const result: { faults: Record<string, number>; acknowledgements: { count: number } } = JSON.parse(
    readFileSync(json, 'utf8'),
  )
  return { output, result }
}
