import assert from 'node:assert/strict'
import { mkdtemp, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import type { StreamSocket } from '../src/foundation/binance/stream-socket.ts'
import { openSocket } from '../src/foundation/binance/stream-socket.ts'
import { sleep } from '../src/foundation/runtime/backoff.ts'
import { createAuthority } from './support/certificates.ts'
import { FIN, frame, PING, PONG, rawServer, readByUs, TEXT, text } from './support/raw-websocket.ts'
import { until } from './support/wait-for.ts'

test('leaves data unread during a pause, and reads all of it afterwards even if the server has closed by then', async () => {
  await using server = await rawServer()
  const ours = readByUs(server.url)
  const connection = await until('a connection', () => server.connections[0], 5000)
  const cut = text('b')
  connection.write(Buffer.concat([text('a'), cut.subarray(0, 2)]))
  await until('the first message', () => ours.events.length === 1, 5000)
  ours.socket.pause()
  connection.write(Buffer.concat([cut.subarray(2), text('c'), text('never whole').subarray(0, 5)]))
  connection.end()
  await sleep(100)
  assert.deepEqual(ours.events, ['a'])
  ours.socket.resume()
  await until('the close', () => ours.closed !== null, 5000)
  assert.deepEqual(ours.events, ['a', 'b', 'c'])
})

for (const [after, end] of Object.entries({
  'when reading resumes': (socket: StreamSocket) => socket.resume(),
  'when the socket is closed': (socket: StreamSocket) => socket.terminate(),
})) {
  test(`delivers data decrypted during a pause of a TLS connection ${after}, in order`, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'tapeline-test-'))
    const authority = await createAuthority(folder, 'exchange')
    const { cert, key } = await authority.sign('exchange', 'IP:127.0.0.1')
    await using server = await rawServer({ cert: await readFile(cert), key: await readFile(key) })
    using _ = trusted(await readFile(authority.cert, 'utf8'))
    const ours = readByUs(server.url, (socket, count) => {
      if (count === 2) socket.pause()
    })
    const connection = await until('a connection', () => server.connections[0], 5000)
    const texts = ['a', ...Array.from({ length: 200 }, (_, i) => `${i}`.padEnd(300, 'x'))]
    connection.write(text('a'))
    await until('the first message', () => ours.events.length === 1, 5000)
    // One read returns all four TLS records.
    connection.write(Buffer.concat(texts.slice(1).map(text)))
    await until('the first record', () => ours.events.length > 1, 5000)
    await sleep(100)
    assert.ok(ours.events.length < 100, `${ours.events.length} messages in a pause`)
    end(ours.socket)
    await until('all messages', () => ours.events.length === texts.length || ours.closed !== null, 5000)
    // Data not yet decrypted at the close is not read.
    assert.deepEqual(ours.events, texts.slice(0, ours.events.length))
    if (ours.closed === null) assert.equal(ours.events.length, texts.length)
    ours.socket.terminate()
  })
}

/** While in use, connections of this process also trust this authority. */
function trusted(authority: string): Disposable {
  const before = getCACertificates('default')
  setDefaultCACertificates([...before, authority])
  return { [Symbol.dispose]: () => setDefaultCACertificates(before) }
}

test('delivers messages whose bytes do not change while later ones are read', async () => {
  await using server = await rawServer()
  const kept: Buffer[] = []
  const socket = openSocket(server.url, {
    onOpen: () => socket.resume(),
    onFailed: assert.fail,
    onFrame: (data) => kept.push(data),
    onPing: () => {},
    onClose: () => {},
  })
  const connection = await until('a connection', () => server.connections[0], 5000)
  // Larger than any buffer that they are read into.
  const texts = Array.from({ length: 4000 }, (_, i) => `${i}`.padEnd(300, 'x'))
  for (let i = 0; i < texts.length; i += 40) {
    connection.write(Buffer.concat(texts.slice(i, i + 40).map(text)))
    await new Promise(setImmediate)
  }
  await until('all messages', () => kept.length === texts.length, 5000)
  assert.deepEqual(
    kept.map((one) => one.toString()),
    texts,
  )
  socket.terminate()
})

test('answers a ping between messages', async () => {
  await using server = await rawServer()
  const ours = readByUs(server.url)
  const connection = await until('a connection', () => server.connections[0], 5000)
  const answers: Buffer[] = []
  connection.on('data', (bytes: Buffer) => answers.push(bytes))
  connection.write(Buffer.concat([text('a'), frame(FIN | PING, Buffer.from('?')), text('b')]))
  await until('the pong', () => answers.length > 0, 5000)
  assert.deepEqual(ours.events, ['a', 'a ping', 'b'])
  // Masked, as required of a client.
  assert.deepEqual([...Buffer.concat(answers).subarray(0, 2)], [FIN | PONG, 0x81])
  ours.socket.terminate()
})

test('F1 delivers a message that is not UTF-8 as it is, and reads on', async () => {
  await using server = await rawServer()
  const frames: string[] = []
  const socket = openSocket(server.url, {
    onOpen: () => socket.resume(),
    onFailed: assert.fail,
    onFrame: (data) => frames.push(data.toString('latin1')),
    onPing: () => {},
    onClose: (reason) => frames.push(reason),
  })
  const connection = await until('a connection', () => server.connections[0], 5000)
  connection.write(Buffer.concat([frame(FIN | TEXT, Buffer.of(0x7b, 0xff, 0x7d)), text('b')]))
  await until('both messages', () => frames.length === 2, 5000)
  assert.deepEqual(frames, ['{\xff}', 'b'])
  socket.terminate()
})

test('F2 refuses a frame above 1 MiB before its bytes arrive', async () => {
  await using server = await rawServer()
  const ours = readByUs(server.url)
  const connection = await until('a connection', () => server.connections[0], 5000)
  connection.write(Buffer.concat([text('a'), Buffer.of(FIN | TEXT, 127, 0, 0, 0, 0, 0, 0x10, 0, 1)]))
  connection.once('data', () => connection.end())
  await until('the close', () => ours.closed !== null, 5000)
  assert.deepEqual(ours.events, ['a'])
  assert.match(String(ours.closed), /Max payload size exceeded/)
})
