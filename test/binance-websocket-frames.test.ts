import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { WebSocket } from 'ws'
import { WebSocketFrames } from '../src/foundation/binance/websocket-frames.ts'
import {
  BINARY,
  CLOSE,
  CONTINUATION,
  FIN,
  frame,
  PING,
  PONG,
  RESERVED,
  rawServer,
  readByUs,
  type Seen,
  TEXT,
  text,
} from './support/raw-websocket.ts'
import { until } from './support/wait-for.ts'

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

test('F2 copies a frame that arrives byte by byte once or twice, not once per byte', () => {
  // One copy per byte would be 86 GB.
  const bytes = frame(FIN | TEXT, Buffer.alloc(65_535, 'x'))
  const lengths: number[] = []
  const frames = new WebSocketFrames({
    onText: (message) => lengths.push(message.length),
    onControl: () => assert.fail(),
    onOther: () => assert.fail(),
  })
  for (let n = 0; n < 40; n++)
    for (let at = 0; at < bytes.length; at++) frames.push(bytes.subarray(at, at + 1))
  assert.deepEqual(
    lengths,
    Array.from({ length: 40 }, () => 65_535),
  )
})

test('delivers each message unchanged however the bytes arrive, and passes the rest on from its first byte', () => {
  const stream = fc.tuple(
    fc.array(plain, { maxLength: 12 }),
    fc.option(other, { nil: undefined }),
    fc.array(plain, { maxLength: 3 }),
  )
  const cuts = fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 40 })
  fc.assert(
    fc.property(stream, cuts, ([before, first, following], lengths) => {
      const rest = first === undefined ? [] : [first, ...following]
      const bytes = Buffer.concat([...before, ...rest].map((one) => one.bytes))
      const got: string[] = []
      const others: Buffer[] = []
      const frames = new WebSocketFrames({
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

const PARTS = [
  frame(TEXT, Buffer.from('in ')),
  frame(CONTINUATION, Buffer.from('three ')),
  frame(FIN | CONTINUATION, Buffer.from('parts')),
]
const GOOD_BYE = frame(FIN | CLOSE, Buffer.concat([Buffer.of(3, 232), Buffer.from('done')]))

for (const [what, frames] of Object.entries({
  'a fragmented message with a ping in between, then whole ones': [
    text('first'),
    ...PARTS.slice(0, 2),
    frame(FIN | PING, Buffer.from('still there?')),
    ...PARTS.slice(2),
    text('last'),
    GOOD_BYE,
  ],
  'a long message': [text('first'), text('y'.repeat(70_000)), text('last'), GOOD_BYE],
  'a binary message': [frame(FIN | BINARY, Buffer.from('{}')), text('last'), GOOD_BYE],
  'messages after a close': [text('first'), GOOD_BYE, text('too late')],
  'invalid UTF-8': [text('first'), frame(FIN | TEXT, NOT_TEXT), text('too late')],
  'an oversized message': [text('first'), Buffer.of(FIN | TEXT, 127, 0, 0, 0, 0, 0, 0x20, 0, 0)],
  'a reserved bit': [text('first'), frame(FIN | RESERVED | TEXT, Buffer.from('x')), text('too late')],
  'a mask': [text('first'), Buffer.of(FIN | TEXT, 0x81, 1, 2, 3, 4, 5), text('too late')],
})) {
  test(`reads ${what} as ws alone does`, async () => {
    await using server = await rawServer()
    const ours = readByUs(server.url)
    await until('our connection', () => server.connections.length === 1, 5000)
    const theirs = readByWs(server.url)
    await until('the other connection', () => server.connections.length === 2, 5000)
    for (const connection of server.connections) {
      for (const one of frames) {
        connection.write(one)
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
      connection.end()
    }
    await until('both to close', () => ours.closed !== null && theirs.closed !== null, 5000)
    assert.deepEqual(ours.events, theirs.events)
    assert.ok(ours.events.length > 0)
  })
}

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
