import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { pino } from 'pino'
import { planConnections } from '../src/foundation/binance/connection-plan.ts'
import { ExchangeGate } from '../src/foundation/binance/exchange-gate.ts'
import { LIFE_CYCLE, type LifeEvent, STATES, type State } from '../src/ingestion/connection/life-cycle.ts'
import { StreamRates } from '../src/ingestion/connection/stream-rates.ts'
import { ConnectionSlot } from '../src/ingestion/connection-slot.ts'
import { Connections } from '../src/ingestion/connections.ts'
import type { FrameOutcome } from '../src/ingestion/core.ts'
import { type HandDrivenSocket, handDrivenSockets } from './support/hand-driven-socket.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const BUSY = 'btcusdt@bookTicker'
const HOUR_MS = 3_600_000
const SIMULATED = { named: 'simulated', timeUnit: null }

/** So many that not all fit into the URL. */
const MANY = Array.from({ length: 1000 }, (_, i) => `symbol${i}usdt@bookTicker`)

/** A connection slot whose sockets the test controls. */
async function scene(streams: readonly string[] = [BUSY, 'btcusdt@trade']) {
  const clock = new VirtualClock()
  const rates = new StreamRates()
  const { open, sockets } = handDrivenSockets(clock)
  const random = () => 0
  const [plan] = planConnections('wss://exchange', streams, 'millisecond')
  assert.ok(plan !== undefined)
  const quiet: string[][] = []
  let connections = 0
  const sink = {
    connected: () => {},
    joining: () => {},
    left: () => {},
    subscribed: () => {},
    disconnected: () => {},
    onFrame(frame: Buffer, id: number): FrameOutcome {
      const text = frame.toString()
      const { stream, id: eventId, control } = JSON.parse(text)
      if (control !== undefined) return { kind: 'control', control, detail: '' }
      if (stream === undefined) return { kind: 'control', control: 'answer', detail: text }
      rates.seen(stream, eventId, clock.monotonicMs(), id)
      return 'event'
    },
  }
  const room = { promise: Promise.resolve(), resolve() {} }
  const queue = { isFull: false, whenRoom: () => room.promise }
  const options = {
    rates,
    plan,
    ports: { clock, random, exchange: { openSocket: open } },
    gate: new ExchangeGate(clock, random, () => {}),
    backoff: { initialMs: 1000, maxMs: 60_000 },
    maxAgeMs: HOUR_MS,
    nextId: () => connections++,
    sink,
    queue,
    checkIdentity: () => {},
    onQuiet: (all: readonly string[]) => void quiet.push([...all]),
    onFatal: assert.ifError,
  }
  const slot = new ConnectionSlot(options, pino({ level: 'silent' }))
  /** Advances in steps of a second, as ingestion does; `act` plays the exchange. */
  const run = async (seconds: number, act: (socket: HandDrivenSocket, i: number) => void = () => {}) => {
    for (let i = 0; i < seconds; i++) {
      for (const [n, socket] of sockets.entries()) if (!socket.closed) act(socket, n)
      slot.watch()
      await clock.advance(1000)
    }
  }
  const socketAt = (i: number) => {
    const socket = sockets[i]
    assert.ok(socket !== undefined, `connection ${i} does not exist`)
    return socket
  }
  const openAt = (i: number) => socketAt(i).events.onOpen(SIMULATED)
  /** Begins a rollover to connection `i`, and opens that. */
  const rollOverTo = async (i: number, act?: (socket: HandDrivenSocket, i: number) => void) => {
    slot.rollOver('a test')
    await run(1, act)
    openAt(i)
  }
  /** Fills the queue for so long. */
  const fullFor = async (socket: HandDrivenSocket | undefined, ms: number) => {
    Object.assign(room, Promise.withResolvers<void>())
    queue.isFull = true
    socket?.deliver(BUSY)
    await clock.advance(ms)
    queue.isFull = false
    room.resolve()
  }
  slot.start()
  await clock.advance(0)
  openAt(0)
  return { clock, slot, sockets, socketAt, open: openAt, quiet, run, rollOverTo, fullFor }
}

/** Sends market data on all but these connections; pings on every one. */
function flowExcept(...silent: readonly number[]) {
  return (socket: HandDrivenSocket, i: number) => {
    socket.events.onPing()
    if (!silent.includes(i)) socket.deliver(BUSY)
  }
}

const flow = flowExcept()
const ping = (socket: HandDrivenSocket) => socket.events.onPing()

/** Sends data of one of {@link MANY} streams, and refuses the last request. */
function refuse(socket: HandDrivenSocket): void {
  socket.events.onPing()
  socket.deliver('symbol0usdt@bookTicker')
  const request = socket.sent.at(-1)
  if (request !== undefined)
    socket.events.onFrame(Buffer.from(JSON.stringify({ code: 2, msg: 'no', id: request.id })))
}

test('R2 the old connection closes six seconds after the new one has delivered, however long the new one was open before', async () => {
  const { slot, socketAt, run, rollOverTo } = await scene()
  await run(10, flow)
  await rollOverTo(1, flow)
  await run(50, flowExcept(1))
  const state = () => [slot.rollovers, socketAt(0).closed]
  assert.deepEqual(state(), [0, false], 'an open connection alone does not take over')
  await run(5, flow)
  assert.deepEqual(state(), [0, false])
  await run(3, flow)
  assert.deepEqual([...state(), socketAt(1).closed], [1, true, false])
})

for (const [what, opens] of [
  ['delivers nothing for a minute', true],
  ['never opens', false],
] as const) {
  test(`R5 a successor that ${what} is abandoned and retried while the old connection continues`, async () => {
    const { slot, sockets, socketAt, open, run } = await scene()
    await run(10, flow)
    slot.rollOver('a test')
    await run(1, flowExcept(1))
    if (opens) open(1)
    await run(61, (socket, i) => (i === 0 || opens ? flowExcept(1)(socket, i) : undefined))
    assert.deepEqual([socketAt(0).closed, socketAt(1).closed, sockets.length], [false, true, 2])
    await run(6, (socket, i) => (i === 0 ? flow(socket, i) : undefined))
    assert.equal(sockets.length, 3)
    open(2)
    await run(8, flow)
    assert.deepEqual([slot.rollovers, socketAt(0).closed], [1, true])
  })
}

test('R5 a successor of rarely traded symbols may be silent for long', async () => {
  const { socketAt, run, rollOverTo } = await scene()
  await rollOverTo(1)
  await run(600, ping)
  assert.deepEqual([socketAt(0).closed, socketAt(1).closed], [false, false])
})

test('R6 the old connection is watched for stalls while its successor cannot open', async () => {
  const { slot, socketAt, quiet, run } = await scene()
  await run(60, (socket) => {
    socket.deliver(BUSY)
    socket.deliver('btcusdt@trade')
  })
  slot.rollOver('a test')
  await run(40, flow)
  assert.deepEqual(quiet, [['btcusdt@trade']])
  const methods = socketAt(0).sent.map(({ method }) => method)
  assert.deepEqual(methods, ['UNSUBSCRIBE'], 'the next request waits for the response')
})

test('R3 a successor replaces a failed connection, and only a replacement without an interruption is counted', async () => {
  const { slot, socketAt, run, rollOverTo } = await scene()
  await run(10, flow)
  await rollOverTo(1, flow)
  socketAt(0).events.onClose('1006')
  await run(20, flow)
  assert.deepEqual([slot.rollovers, slot.lost, slot.connections.length], [0, 1, 1])
  assert.equal(socketAt(1).closed, false)
  await rollOverTo(2, flow)
  await run(10, flow)
  assert.deepEqual([slot.rollovers, slot.lost, socketAt(1).closed], [1, 1, true])
})

test('R3 a successor that is not open yet replaces a failed connection, and retries until it is open', async () => {
  const { slot, sockets, socketAt, open, run } = await scene()
  await run(10, flow)
  slot.rollOver('a test')
  await run(1, flow)
  socketAt(0).events.onClose('1006')
  await run(1)
  socketAt(1).events.onFailed(new Error('refused'))
  await run(2)
  assert.equal(sockets.length, 3)
  open(2)
  await run(5, flow)
  assert.deepEqual([slot.isOpen, slot.rollovers, slot.status()[0]?.attempts], [true, 0, 2])
})

test('R5 a connection whose subscription is refused during an overlap is replaced by the next successor', async () => {
  const { slot, sockets, socketAt, run } = await scene(MANY)
  slot.rollOver('a test')
  await run(1)
  assert.equal(sockets.length, 2)
  // The successor never opens, and only its end can lead to another one.
  await run(68, (socket, i) => (i === 0 ? refuse(socket) : undefined))
  assert.deepEqual([socketAt(0).closed, socketAt(1).closed, sockets.length], [false, true, 3])
})

test('an announced shutdown of the successor opens another at once', async () => {
  const { sockets, socketAt, run, rollOverTo } = await scene()
  await rollOverTo(1)
  socketAt(1).events.onFrame(Buffer.from('{"control":"serverShutdown"}'))
  await run(1)
  assert.deepEqual([socketAt(0).closed, socketAt(1).closed, sockets.length], [false, true, 3])
})

test('R4 the state table of a connection slot in the specification matches the code', () => {
  const events = Object.keys(LIFE_CYCLE.single) as LifeEvent[]
  const cell = (state: State, event: LifeEvent) => {
    const [next, ...actions] = LIFE_CYCLE[state][event] ?? []
    return next === undefined ? '' : [next === state ? 'again' : `→ ${next}`, ...actions].join(', ')
  }
  const rows = [
    ['event', ...STATES],
    ...events.map((event) => [event, ...STATES.map((state) => cell(state, event))]),
  ]
  const written = readFileSync('docs/specification.md', 'utf8')
    .split('\n')
    .filter((line) => line.startsWith('|'))
    .map((line) =>
      line
        .slice(1, -1)
        .split('|')
        .map((text) => text.trim())
        .join(' | '),
    )
  for (const row of rows) assert.ok(written.includes(row.join(' | ')), `No row | ${row.join(' | ')} |`)
})

test('R7 a connection that delivers nothing although its streams have a rate is reported as silent', async () => {
  const { clock, slot, run } = await scene()
  await run(60, flow)
  assert.equal(slot.silentMs(clock.monotonicMs()), null)
  await run(59, ping)
  assert.equal(slot.silentMs(clock.monotonicMs()), null)
  await run(3, ping)
  assert.ok((slot.silentMs(clock.monotonicMs()) ?? 0) > 60_000)
  assert.ok((slot.status()[0]?.lastDataAgeMs ?? 0) > 60_000)
})

test('U1 subscribes in chunks, each after the response to the previous one, with at most four messages per second including pongs', async () => {
  const { clock, socketAt } = await scene(MANY)
  const socket = socketAt(0)
  const pongs: number[] = []
  for (let answered = 0, i = 0; i < 400; i++) {
    await clock.advance(25)
    if (i % 40 === 0) {
      pongs.push(clock.monotonicMs())
      socket.events.onPing()
    }
    for (const { id } of socket.sent.slice(answered)) socket.answer(id)
    answered = socket.sent.length
  }
  assert.ok(socket.sent.length >= 3, `${socket.sent.length} requests`)
  assert.ok(socket.sent.every(({ params }) => params.length <= 200))
  const times = [...pongs, ...socket.sent.map(({ atMs }) => atMs)]
  for (const fromMs of times) {
    assert.ok(times.filter((atMs) => atMs >= fromMs && atMs < fromMs + 1000).length <= 4)
  }
})

test('U2 resends a refused or unanswered request, then replaces the connection, with increasing waits', async () => {
  const { slot, sockets, socketAt, run } = await scene(MANY)
  const unanswered = (socket: HandDrivenSocket) => {
    socket.events.onPing()
    socket.deliver('symbol0usdt@bookTicker')
  }
  await run(12, unanswered)
  assert.deepEqual([socketAt(0).sent.length, sockets.length], [2, 1])
  await run(10, unanswered)
  const replacedAt: number[] = []
  for (let second = 0; second < 3600; second++) {
    const before = sockets.length
    await run(1, refuse)
    if (sockets.length === before) continue
    replacedAt.push(second)
    sockets.at(-1)?.events.onOpen(SIMULATED)
  }
  assert.equal(socketAt(0).closed, false, 'its delivered streams continue')
  assert.equal(slot.rollovers, 0)
  assert.ok(replacedAt.length >= 5 && replacedAt.length < 15, `replaced at ${replacedAt} s`)
})

test('U3 before a connection has its streams, it is not judged and no successor takes over', async () => {
  const { slot, socketAt, quiet, run, rollOverTo } = await scene(MANY)
  const confirm = (socket: HandDrivenSocket) => {
    for (const { id } of socket.sent.slice(-1)) socket.answer(id)
    for (const stream of ['symbol0usdt@bookTicker', 'symbol999usdt@bookTicker']) socket.deliver(stream)
  }
  await run(60, confirm)
  await rollOverTo(1, confirm)
  await run(15, (socket, i) => {
    if (i === 0) confirm(socket)
    else socket.deliver('symbol0usdt@bookTicker')
  })
  assert.deepEqual([slot.rollovers, socketAt(0).closed, quiet], [0, false, []])
  await run(12, confirm)
  assert.deepEqual([slot.rollovers, socketAt(0).closed, quiet], [1, true, []])
})

test('P1 many short pauses drop a connection like one long pause', async () => {
  const { clock, sockets, socketAt, fullFor } = await scene()
  for (let i = 0; i < 2; i++) {
    await fullFor(socketAt(0), 4000)
    await clock.advance(1000)
  }
  assert.equal(socketAt(0).closed, true)
  await clock.advance(2000)
  sockets.at(-1)?.events.onOpen(SIMULATED)
  for (let i = 0; i < 20; i++) {
    await fullFor(sockets.at(-1), 2000)
    await clock.advance(2500)
  }
  assert.equal(sockets.at(-1)?.closed, false, 'with time to catch up they may continue indefinitely')
})

test('counters of connections do not fall when all streams of one have left', () => {
  const clock = new VirtualClock()
  const random = () => 0
  const exchange = { openSocket: handDrivenSockets(clock).open }
  const config = { wsUrl: 'wss://exchange', connectionsPerStream: 1, connectionMaxAgeMs: HOUR_MS }
  const connections = new Connections(
    {
      config: config as never,
      ports: { clock, random, exchange } as never,
      gate: new ExchangeGate(clock, random, () => {}),
      core: { rates: new StreamRates() } as never,
      queue: { isFull: false, whenRoom: async () => {} } as never,
      source: 'simulated',
      timeUnit: 'millisecond',
      onQuiet: () => {},
      onFatal: assert.ifError,
    },
    pino({ level: 'silent' }),
  )
  connections.change([BUSY], [])
  for (const slot of connections.slots) Object.assign(slot, { rollovers: 2, lost: 1 })
  connections.change([], [BUSY])
  assert.deepEqual([connections.slots, connections.rollovers, connections.lost], [[], 2, 1])
})
