import assert from 'node:assert/strict'
import { execFile, spawnSync } from 'node:child_process'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { resolve } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { outsideText } from '../src/foundation/runtime/outside-text.ts'
import { drawOn, guardTerminal, printable, terminalText } from '../src/foundation/telemetry/terminal.ts'
import { colourStyle } from '../src/sandbox/up/display/text-style.ts'

const TAPELINE = resolve(import.meta.dirname, '../bin/tapeline')

/** Clears the screen, sets the title, hides text, changes the direction; two have no escape. */
const HOSTILE = 'a\u001b[2Jb\u001b]0;title\u0007c\u001b[8md\u202ee\u009b2Jf\rg'

test('external text becomes one line of at most 200 characters, without control characters or an unpaired surrogate', () => {
  for (const text of [
    HOSTILE,
    'x'.repeat(500),
    `${'x'.repeat(198)}😀😀`,
    'nul \0 in it',
    'half \ud83d of a pair',
  ]) {
    const clean = outsideText(text)
    assert.ok(clean.length <= 200)
    assert.ok(clean.isWellFormed())
    assert.doesNotMatch(clean, /[\p{Cc}\p{Cf}]/u)
  }
  assert.equal(outsideText('Invalid\n symbol. '), 'Invalid symbol.')
  assert.equal(outsideText(`${'x'.repeat(198)}😀😀`), `${'x'.repeat(198)}…`)
})

test('a terminal gets line ends, tabs and our colours; other control characters are escaped', () => {
  const ours = `${colourStyle.bad('refused')}\t${colourStyle.dim(colourStyle.bold('x'))}\n`
  assert.equal(terminalText(ours), ours)
  assert.equal(
    terminalText(HOSTILE),
    'a\\u001b[2Jb\\u001b]0;title\\u0007c\\u001b[8md\\u202ee\\u009b2Jf\\u000dg',
  )
  assert.equal(printable('a\nb'), 'a\\u000ab')
})

test('a guarded terminal sanitises written text but not drawn text; a pipe is unchanged', () => {
  const written: unknown[] = []
  const stream = (isTTY: boolean) => ({
    isTTY,
    write(chunk: unknown) {
      written.push(chunk)
      return true
    },
  })
  const terminal = stream(true)
  guardTerminal(terminal)
  guardTerminal(terminal)
  terminal.write('\u001b[2J')
  drawOn(terminal, '\u001b[2J')
  const pipe = stream(false)
  guardTerminal(pipe)
  pipe.write('\u001b[2J')
  drawOn(pipe, '\u001b[K')
  assert.deepEqual(written, ['\\u001b[2J', '\u001b[2J', '\u001b[2J', '\u001b[K'])
})

const hasScript = spawnSync('script', ['--version'], { stdio: 'ignore' }).status === 0

test("the exchange's texts cannot control the terminal of `status`", {
  skip: hasScript ? false : 'script (of util-linux) is not installed',
}, async () => {
  const status = {
    service: 'ingestion',
    ready: false,
    reason: HOSTILE,
    uptimeMs: 1,
    connections: [],
    streams: {},
    counters: {},
    openGaps: [],
    refusals: { rest: null, handshakes: null },
    books: null,
    eventToReceiptMs: { count: 0 },
  }
  const server = createServer((_request, response) => response.end(JSON.stringify(status)))
  await new Promise<void>((started) => server.listen(0, '127.0.0.1', started))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  try {
    const { stdout } = await promisify(execFile)(
      'script',
      ['-qec', `${TAPELINE} status || true`, '/dev/null'],
      {
        cwd: tmpdir(),
        env: { ...process.env, INGEST_URLS: url, CONSUMER_URLS: url, NO_COLOR: '1' },
        timeout: 60_000,
      },
    )
    const shown = stdout.replaceAll('\r\n', '\n')
    assert.match(shown, /a\\u001b\[2Jb\\u001b\]0;title/)
    assert.doesNotMatch(shown, /[^\P{Cc}\n\t]/u)
  } finally {
    server.close()
  }
})
