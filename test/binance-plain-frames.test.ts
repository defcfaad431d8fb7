import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { test } from 'node:test'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import fc from 'fast-check'
import { WebSocket } from 'ws'
import { PlainFrames } from '../src/binance/plain-frames.ts'
import { openSocket, type StreamSocket } from '../src/binance/stream-socket.ts'
import { createAuthority } from './support/certificates.ts'
import { waitFor } from './support/wait-for.ts'

const [CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG] = [0x00, 0x01, 0x02, 0x08, 0x09, 0x0a]
const FIN = 0x80
const RESERVED = 0x40

/** As a server writes it, its length as short as can be. */
function frame(first: number, payload: Buffer): Buffer {
  const { length } = payload
  const head =
    length < 126
      ? [first, length]
      : length < 65_536
        ? [first, 126, length >> 8, length & 0xff]
        : [
            first,
            127,
            0,
            0,
            0,
            0,
            length >>> 24,
            (length >>> 16) & 0xff,
            (length >>> 8) & 0xff,
            length & 0xff,
          ]
  return Buffer.concat([Buffer.from(head), payload])
}

const text = (value: string) => frame(FIN | TEXT, Buffer.from(value))

const texts = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 200 }),
  fc.constantFrom(0, 1, 125, 126, 127, 1023, 1024, 1025, 65_535).map((length) => 'x'.repeat(length)),
)
const plain = fc.oneof(
  { weight: 5, arbitrary: texts.map((value) => ({ kind: 'text', bytes: text(value) })) },
  fc
    .tuple(fc.constantFrom(PING, PONG), fc.uint8Array({ maxLength: 125 }))
    .map(([opcode, payload]) => ({ kind: 'control', bytes: frame(FIN | opcode, Buffer.from(payload)) })),
)
const NOT_TEXT = Buffer.of(0x7b, 0xff, 0x7d)
const other = fc
  .constantFrom(
    frame(TEXT, Buffer.from('in parts')),
    frame(FIN | CONTINUATION, Buffer.from('the last part')),
    frame(FIN | BINARY, Buffer.from('binary')),
    frame(FIN | CLOSE, Buffer.of(3, 232)),
    frame(FIN | RESERVED | TEXT, Buffer.from('compressed')),
    frame(FIN | TEXT, NOT_TEXT),
    frame(FIN | TEXT, Buffer.alloc(65_536, 'x')),
    Buffer.concat([Buffer.of(FIN | TEXT, 0x80 | 1), Buffer.from('maskx')]),
    Buffer.of(FIN | PING, 126, 0, 126),
    Buffer.from('HTTP/1.1 400 Bad Request'),
  )
  .map((bytes) => ({ kind: 'other', bytes }))

test('gives each message as it was sent, however the bytes come, and the rest to another from its first byte on', () => {
  const stream = fc.tuple(
    fc.array(plain, { maxLength: 12 }),
    fc.option(other, { nil: undefined }),
    fc.array(plain, { maxLength: 3 }),
  )
  const cuts = fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 40 })
  fc.assert(
    fc.property(stream, cuts, ([before, first, behind], lengths) => {
      const rest = first === undefined ? [] : [first, ...behind]
      const bytes = Buffer.concat([...before, ...rest].map((one) => one.bytes))
      const got: string[] = []
      const others: Buffer[] = []
      const frames = new PlainFrames({
        onText: (value) => got.push(text(value.toString()).toString('latin1')),
        onControl: (value) => got.push(value.toString('latin1')),
        onOther: (value) => others.push(value),
      })
      for (let at = 0, turn = 0; at < bytes.length && others.length === 0; turn++) {
        const end = at + (lengths[turn % lengths.length] ?? 1)
        frames.push(Buffer.from(bytes.subarray(at, end)))
        at = Math.min(end, bytes.length)
        if (others.length > 0) others.push(bytes.subarray(at))
      }
      assert.deepEqual(
        got,
        before.map((one) => one.bytes.toString('latin1')),
      )
      assert.equal(
        Buffer.concat(others).toString('latin1'),
        Buffer.concat(rest.map((one) => one.bytes)).toString('latin1'),
      )
    }),
    { numRuns: 500 },
  )
})

/** A server that takes every upgrade, and leaves the bytes of the connection to the test. */
async function rawServer(tls: { readonly cert: Buffer; readonly key: Buffer } | null = null) {
  const connections: Duplex[] = []
  const server = tls === null ? createServer() : createSecureServer(tls)
  server.on('upgrade', (request, socket) => {
    const accept = createHash('sha1')
      .update(`${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
      .digest('base64')
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
    )
    socket.on('error', () => {})
    connections.push(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('The server has no port')
  return {
    url: `${tls === null ? 'ws' : 'wss'}://127.0.0.1:${address.port}`,
    connections,
    async [Symbol.asyncDispose]() {
      for (const connection of connections) connection.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

interface Seen {
  readonly events: string[]
  closed: string | null
}

function readByWs(url: string): Seen {
  const seen: Seen = { events: [], closed: null }
  const socket = new WebSocket(url, { perMessageDeflate: false, maxPayload: 1 << 20 })
  socket.on('message', (data: Buffer) => seen.events.push(data.toString()))
  socket.on('ping', () => seen.events.push('a ping'))
  socket.on('error', () => {})
  socket.on('close', (code) => {
    seen.closed = String(code)
  })
  return seen
}

function readByUs(
  url: string,
  onMessage: (socket: StreamSocket, count: number) => void = () => {},
): Seen & { readonly socket: StreamSocket } {
  const events: string[] = []
  const socket = openSocket(url, {
    onOpen: () => socket.resume(),
    onFailed: (error) => events.push(String(error)),
    onFrame: (data) => onMessage(socket, events.push(data.toString())),
    onPing: () => events.push('a ping'),
    onClose: (reason) => {
      seen.closed = reason
    },
  })
  const seen: Seen & { readonly socket: StreamSocket } = { events, socket, closed: null }
  return seen
}

const PARTS = [
  frame(TEXT, Buffer.from('in ')),
  frame(CONTINUATION, Buffer.from('three ')),
  frame(FIN | CONTINUATION, Buffer.from('parts')),
]
const GOOD_BYE = frame(FIN | CLOSE, Buffer.concat([Buffer.of(3, 232), Buffer.from('done')]))

for (const [what, frames] of Object.entries({
  'a message in parts with a ping between, and whole ones behind it': [
    text('first'),
    ...PARTS.slice(0, 2),
    frame(FIN | PING, Buffer.from('still there?')),
    ...PARTS.slice(2),
    text('last'),
    GOOD_BYE,
  ],
  'a long message': [text('first'), text('y'.repeat(70_000)), text('last'), GOOD_BYE],
  'a binary message': [frame(FIN | BINARY, Buffer.from('{}')), text('last'), GOOD_BYE],
  'messages behind a close': [text('first'), GOOD_BYE, text('too late')],
  'bytes that are no text': [text('first'), frame(FIN | TEXT, NOT_TEXT), text('too late')],
  'a message that is too long': [text('first'), Buffer.of(FIN | TEXT, 127, 0, 0, 0, 0, 0, 0x20, 0, 0)],
  'a reserved bit': [text('first'), frame(FIN | RESERVED | TEXT, Buffer.from('x')), text('too late')],
  'a mask': [text('first'), Buffer.of(FIN | TEXT, 0x81, 1, 2, 3, 4, 5), text('too late')],
})) {
  test(`reads ${what} as ws alone does`, async () => {
    await using server = await rawServer()
    const ours = readByUs(server.url)
    await waitFor(() => server.connections.length === 1, { timeoutMs: 5000, what: 'our connection' })
    const theirs = readByWs(server.url)
    await waitFor(() => server.connections.length === 2, { timeoutMs: 5000, what: 'the other connection' })
    for (const connection of server.connections) {
      for (const one of frames) {
        connection.write(one)
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
      connection.end()
    }
    await waitFor(() => ours.closed !== null && theirs.closed !== null, {
      timeoutMs: 5000,
      what: 'both to close',
    })
    assert.deepEqual(ours.events, theirs.events)
    assert.ok(ours.events.length > 0)
  })
}

test('answers a ping between messages', async () => {
  await using server = await rawServer()
  const ours = readByUs(server.url)
  const connection = await waitFor(() => server.connections[0], { timeoutMs: 5000, what: 'a connection' })
  const answers: Buffer[] = []
  connection.on('data', (bytes: Buffer) => answers.push(bytes))
  connection.write(Buffer.concat([text('a'), frame(FIN | PING, Buffer.from('?')), text('b')]))
  await waitFor(() => answers.length > 0, { timeoutMs: 5000, what: 'the pong' })
  assert.deepEqual(ours.events, ['a', 'a ping', 'b'])
  // Masked, as a client's must be.
  assert.deepEqual([...Buffer.concat(answers).subarray(0, 2)], [FIN | PONG, 0x81])
  ours.socket.terminate()
})

test('leaves what comes in a pause unread, and reads all of it afterwards though the server has ended by then', async () => {
  await using server = await rawServer()
  const ours = readByUs(server.url)
  const connection = await waitFor(() => server.connections[0], { timeoutMs: 5000, what: 'a connection' })
  const cut = text('b')
  connection.write(Buffer.concat([text('a'), cut.subarray(0, 2)]))
  await waitFor(() => ours.events.length === 1, { timeoutMs: 5000, what: 'the first message' })
  ours.socket.pause()
  connection.write(Buffer.concat([cut.subarray(2), text('c'), text('never whole').subarray(0, 5)]))
  connection.end()
  await new Promise((resolve) => setTimeout(resolve, 100))
  assert.deepEqual(ours.events, ['a'])
  ours.socket.resume()
  await waitFor(() => ours.closed !== null, { timeoutMs: 5000, what: 'the close' })
  assert.deepEqual(ours.events, ['a', 'b', 'c'])
})

for (const [after, end] of Object.entries({
  'when it is read again': (socket: StreamSocket) => socket.resume(),
  'when it is closed': (socket: StreamSocket) => socket.terminate(),
})) {
  test(`gives what was decrypted in the pause of a TLS connection ${after}, in order`, async () => {
    const folder = await mkdtemp(join(tmpdir(), 'tapeline-test-'))
    try {
      const authority = await createAuthority(folder, 'exchange')
      const { cert, key } = await authority.sign('exchange', 'IP:127.0.0.1')
      await using server = await rawServer({ cert: await readFile(cert), key: await readFile(key) })
      using _ = trusted(await readFile(authority.cert, 'utf8'))
      const ours = readByUs(server.url, (socket, count) => {
        if (count === 2) socket.pause()
      })
      const connection = await waitFor(() => server.connections[0], {
        timeoutMs: 5000,
        what: 'a connection',
      })
      const texts = ['a', ...Array.from({ length: 200 }, (_, i) => `${i}`.padEnd(300, 'x'))]
      connection.write(text('a'))
      await waitFor(() => ours.events.length === 1, { timeoutMs: 5000, what: 'the first message' })
      // Four records of TLS, of which one read brings all.
      connection.write(Buffer.concat(texts.slice(1).map(text)))
      await waitFor(() => ours.events.length > 1, { timeoutMs: 5000, what: 'the first record' })
      await new Promise((resolve) => setTimeout(resolve, 100))
      assert.ok(ours.events.length < 100, `${ours.events.length} messages in a pause`)
      end(ours.socket)
      await waitFor(() => ours.events.length === texts.length || ours.closed !== null, {
        timeoutMs: 5000,
        what: 'all messages',
      })
      // What was not decrypted yet when it was closed is not read.
      assert.deepEqual(ours.events, texts.slice(0, ours.events.length))
      if (ours.closed === null) assert.equal(ours.events.length, texts.length)
      ours.socket.terminate()
    } finally {
      await rm(folder, { recursive: true })
    }
  })
}

/** For as long as it is in use, connections of this process trust the authority too. */
function trusted(authority: string): Disposable {
  const before = getCACertificates('default')
  setDefaultCACertificates([...before, authority])
  return { [Symbol.dispose]: () => setDefaultCACertificates(before) }
}

test('gives messages whose bytes stay as they are while others are read', async () => {
  await using server = await rawServer()
  const kept: Buffer[] = []
  const socket = openSocket(server.url, {
    onOpen: () => socket.resume(),
    onFailed: assert.fail,
    onFrame: (data) => kept.push(data),
    onPing: () => {},
    onClose: () => {},
  })
  const connection = await waitFor(() => server.connections[0], { timeoutMs: 5000, what: 'a connection' })
  // More than any buffer that they are read into.
  const texts = Array.from({ length: 4000 }, (_, i) => `${i}`.padEnd(300, 'x'))
  for (let i = 0; i < texts.length; i += 40) {
    connection.write(Buffer.concat(texts.slice(i, i + 40).map(text)))
    await new Promise(setImmediate)
  }
  await waitFor(() => kept.length === texts.length, { timeoutMs: 5000, what: 'all messages' })
  assert.deepEqual(
    kept.map((one) => one.toString()),
    texts,
  )
  socket.terminate()
})

test('is in use on the connections of ws', async () => {
  await using server = await rawServer()
  const ours = readByUs(server.url)
  const connection = await waitFor(() => server.connections[0], { timeoutMs: 5000, what: 'a connection' })
  const messages: unknown[] = []
  const pushed: unknown[] = []
  const { push } = Socket.prototype
  const { emit } = WebSocket.prototype
  WebSocket.prototype.emit = function (event: string, ...args: unknown[]) {
    if (event === 'message') messages.push(args[0])
    return Reflect.apply(emit, this, [event, ...args])
  }
  Socket.prototype.push = function (chunk: unknown) {
    pushed.push(chunk)
    return Reflect.apply(push, this, [chunk])
  }
  try {
    connection.write(text('a'))
    await waitFor(() => ours.events.length > 0, { timeoutMs: 5000, what: 'the message' })
  } finally {
    WebSocket.prototype.emit = emit
    Socket.prototype.push = push
  }
  // Neither as a message of ws nor through the stream of the connection.
  assert.deepEqual([ours.events, messages, pushed], [['a'], [], []])
  ours.socket.terminate()
})
