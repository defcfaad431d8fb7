import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { test } from 'node:test'
import { replayCommand } from '../src/cli/replay.ts'
import { simulateCommand } from '../src/cli/simulate.ts'
import { TapelineError } from '../src/foundation/runtime/errors.ts'
import { within } from './support/wait-for.ts'

test('every wrong option of a command is reported at once, with its value and the expected format', async () => {
  const parse = simulateCommand().parseAsync(
    ['--port', '99999', '--rate', 'fast', '--seed', '1.5', '--symbols', 'a b'],
    { from: 'user' },
  )
  await assert.rejects(parse, (error) => {
    assert(error instanceof TapelineError)
    assert.equal(error.exitCode, 2)
    for (const part of [
      /--port: .* 65535, got "99999"/,
      /--rate: .*got "fast"/,
      /--seed: .*"1.5"/,
      /--symbols: .*"a b"/,
    ]) {
      assert.match(error.message, part)
    }
    return true
  })
  const replay = replayCommand().parseAsync(['x.ndjson', '--speed', '-1'], { from: 'user' })
  await assert.rejects(replay, /--speed: expected a number from .* or "max", got "-1"/)
})

test('an exchange started by another process reports its address, and does not outlive it', {
  timeout: 20_000,
}, async (context) => {
  const module = new URL('../src/cli/simulate.ts', import.meta.url).href
  const script = `import { simulateCommand } from '${module}'; await simulateCommand().parseAsync(['--port', '0'], { from: 'user' })`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  })
  context.after(() => child.kill('SIGKILL'))
  const { stdout } = child
  assert(stdout)
  const [[message], [line]] = await within(10_000, 'its address', () =>
    Promise.all([once(child, 'message'), once(stdout, 'data')]),
  )
  assert.equal(message.type, 'listening')
  assert.equal(message.source, 'simulated')
  assert.match(
    String(line),
    new RegExp(`BINANCE_WS_URL=${message.wsUrl} BINANCE_REST_URL=${message.restUrl} `),
  )
  assert.equal((await fetch(`${message.restUrl}/api/v3/ping`)).status, 200)
  child.disconnect()
  assert.deepEqual(await within(5_000, 'its end', () => once(child, 'exit')), [0, null])
})
