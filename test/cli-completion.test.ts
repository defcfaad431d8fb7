import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { completionScript } from '../src/cli/completion.ts'
import { createProgram } from '../src/cli/program.ts'

const program = await createProgram()

const has = (shell: string) =>
  spawnSync(shell, ['-c', 'exit 0'], { stdio: 'ignore' }).status === 0
    ? {}
    : { skip: `${shell} is not installed` }

/** Returns the completions of bash for these words; the last one is incomplete. */
function offered(words: readonly string[], folder: string): string[] {
  const script = join(folder, 'completion.bash')
  writeFileSync(script, completionScript(program, 'bash'))
  const typed = words.map((word) => `'${word}'`).join(' ')
  const text = execFileSync(
    'bash',
    [
      '-c',
      `source ${script}; COMP_WORDS=(${typed}); COMP_CWORD=${words.length - 1}; _tapeline; printf '%s\\n' "\${COMPREPLY[@]}"`,
    ],
    { encoding: 'utf8', cwd: folder },
  )
  return text.split('\n').filter((line) => line !== '')
}

test('bash completes commands, subcommands, options, choices and files', has('bash'), () => {
  const folder = mkdtempSync(join(tmpdir(), 'completion-'))
  assert.deepEqual(offered(['tapeline', 'd'], folder), ['dead-letters', 'dashboard', 'doctor'])
  assert.deepEqual(offered(['tapeline', 'dead-letters', 'l'], folder), ['list'])
  assert.deepEqual(offered(['tapeline', 'dead-letters', 'list', '--re'], folder), ['--reason'])
  assert.deepEqual(offered(['tapeline', 'export', 'BTCUSDT', '--format', ''], folder), ['parquet', 'csv'])
  assert.deepEqual(offered(['tapeline', 'completion', ''], folder).slice(0, 3), ['bash', 'zsh', 'fish'])
  assert.deepEqual(offered(['tapeline', 'up', '--replay', 'compl'], folder), ['completion.bash'])
})

for (const shell of ['bash', 'zsh', 'fish'] as const) {
  test(`${shell} loads the script without an error`, has(shell), () => {
    const folder = mkdtempSync(join(tmpdir(), 'completion-'))
    const script = join(folder, 'script')
    writeFileSync(script, completionScript(program, shell))
    const { status, stderr } = spawnSync(shell, ['-n', script], { encoding: 'utf8' })
    assert.deepEqual([status, stderr], [0, ''])
  })
}

test("every command's help has an example", () => {
  const without: string[] = []
  const visit = (command: typeof program, path: string) => {
    let text = ''
    command.configureOutput({
      writeOut: (part) => {
        text += part
      },
    })
    command.outputHelp()
    if (path !== '' && command.commands.length === 0 && !/Examples?:/.test(text)) without.push(path)
    for (const below of command.commands) visit(below, `${path} ${below.name()}`)
  }
  visit(program, '')
  assert.deepEqual(without, [])
})
