import assert from 'node:assert/strict'
import { createServer } from 'node:net'
import { test } from 'node:test'
import { startTapeline } from './support/processes.ts'
import { until } from './support/wait-for.ts'

const COMMANDS = [
  ['dead-letters', 'list'],
  ['dead-letters', 'retry'],
  ['gaps', 'list'],
  ['gaps', 'retry'],
  ['topics', 'init'],
]

test('Ctrl-C ends a command that waits for a silent database or broker', async () => {
  const connected = new Set<unknown>()
  const server = createServer((socket) => {
    connected.add(socket)
    socket.on('error', () => {})
  })
  await new Promise<void>((started) => server.listen(0, '127.0.0.1', started))
  const address = server.address()
  assert.ok(address !== null && typeof address === 'object')
  const where = `127.0.0.1:${address.port}`
  const env = { DATABASE_URL: `postgres://user:secret@${where}/tapeline`, KAFKA_BROKERS: where }
  try {
    for (const args of COMMANDS) {
      connected.clear()
      await using command = startTapeline(args, { env })
      await until(`${args.join(' ')} to have connected`, () => connected.size > 0)
      command.signal('SIGINT')
      const { code, signal } = await command.exit(5000)
      assert.ok(signal === 'SIGINT' || code === 1, `${args.join(' ')} ended with ${signal ?? code}`)
    }
  } finally {
    server.close()
  }
})
