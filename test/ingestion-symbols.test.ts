import assert from 'node:assert/strict'
import { test } from 'node:test'
import { changePlans, planConnections } from '../src/foundation/binance/connection-plan.ts'
import { partitionOf } from '../src/foundation/kafka/partition.ts'
import { TapelineError } from '../src/foundation/runtime/errors.ts'
import { createLogger } from '../src/foundation/telemetry/log.ts'
import { AcknowledgedState } from '../src/ingestion/checkpoint/acknowledged-state.ts'
import { checkpointText, emptyCheckpoint, parseCheckpoint } from '../src/ingestion/checkpoint/checkpoint.ts'
import { type SelectionChange, SymbolSelection } from '../src/ingestion/symbol-selection.ts'
import { SymbolWatch, type SymbolWatchOptions } from '../src/ingestion/symbol-watch.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const STATUSES = { BTCUSDT: 'TRADING', ETHUSDT: 'TRADING', LUNAUSDT: 'BREAK', BNBUSDT: 'HALT' }

function select(symbols: string[], statuses: Record<string, string> | null, ...known: string[]) {
  const selection = new SymbolSelection({
    symbols,
    shard: { index: 0, count: 1 },
    restUrl: 'https://exchange',
  })
  selection.begin(statuses === null ? null : answer(statuses), new Set(known))
  return selection
}

const answer = (statuses: Record<string, string>) => new Map(Object.entries(statuses))
const sorted = (symbols: Iterable<string>) => [...symbols].sort()
const NOTHING = { added: [], listed: [], joined: [], left: [], halted: [], resumed: [] }

test('N3: a named symbol that is halted is recorded: it may resume at any time', () => {
  const selection = select(['BTCUSDT', 'LUNAUSDT', 'BNBUSDT'], STATUSES)
  assert.deepEqual(sorted(selection.subscribed), ['BNBUSDT', 'BTCUSDT', 'LUNAUSDT'])
  assert.deepEqual(sorted(selection.halted), ['BNBUSDT', 'LUNAUSDT'])
  assert.equal(selection.problem, '')
})

test('N2: a name unknown to the exchange and to checkpoints stops the start, and is named', () => {
  assert.throws(
    () => select(['BTCUSDT', 'LUNAUSDT', 'BTCUSTD'], STATUSES, 'BTCUSDT'),
    (error) => error instanceof TapelineError && /: BTCUSTD$/.test(error.message),
  )
})

test('N2: a name that only checkpoints know stays in memory without streams, and does not stop the others', () => {
  const selection = select(['BTCUSDT', 'GONEUSDT'], STATUSES, 'GONEUSDT')
  assert.deepEqual(sorted(selection.subscribed), ['BTCUSDT'])
  assert.deepEqual(sorted(selection.taken), ['BTCUSDT', 'GONEUSDT'])
  assert.deepEqual([...selection.leftOut], [['GONEUSDT', 'delisted']])
})

test('N3: * takes the trading symbols and those of checkpoints, and reports the excluded ones', () => {
  const selection = select(['*'], STATUSES, 'BNBUSDT', 'GONEUSDT')
  assert.deepEqual(sorted(selection.subscribed), ['BNBUSDT', 'BTCUSDT', 'ETHUSDT'])
  assert.deepEqual(sorted(selection.taken), ['BNBUSDT', 'BTCUSDT', 'ETHUSDT', 'GONEUSDT'])
  assert.deepEqual(sorted([...selection.leftOut].map(String)), ['GONEUSDT,delisted', 'LUNAUSDT,halted'])
})

test('N5: if nothing trades, the start waits and reports why, and resumed symbols join', () => {
  const selection = select(['*'], { BTCUSDT: 'BREAK' })
  assert.match(selection.problem, /no symbol is trading/)
  const joined = { ...NOTHING, added: ['BTCUSDT'], joined: ['BTCUSDT'] }
  assert.deepEqual(selection.update(answer({ BTCUSDT: 'TRADING' })), joined)
  assert.equal(selection.problem, '')
  assert.deepEqual(selection.update(answer({ BTCUSDT: 'BREAK' })), { ...NOTHING, halted: ['BTCUSDT'] })
  assert.match(selection.problem, /no symbol is trading/)
  assert.deepEqual(selection.update(answer({ BTCUSDT: 'TRADING' })), { ...NOTHING, resumed: ['BTCUSDT'] })
})

test('N4: a symbol missing in an earlier answer is recorded from its first id, unless a checkpoint knows it', () => {
  const selection = select(['*'], STATUSES, 'OLDUSDT')
  const announced = { ...STATUSES, NEWUSDT: 'BREAK' }
  assert.deepEqual(selection.update(answer(announced)), NOTHING)
  const change = selection.update(
    answer({ ...announced, NEWUSDT: 'TRADING', LUNAUSDT: 'TRADING', OLDUSDT: 'TRADING' }),
  )
  assert.deepEqual(sorted(change.joined), ['LUNAUSDT', 'NEWUSDT', 'OLDUSDT'])
  assert.deepEqual(sorted(change.added), ['LUNAUSDT', 'NEWUSDT'])
  assert.deepEqual(change.listed, ['NEWUSDT'])
})

test('N6: a symbol leaves when two consecutive answers lack it, and joins again when it returns', () => {
  const selection = select(['BTCUSDT', 'ETHUSDT'], STATUSES)
  const without = answer({ BTCUSDT: 'TRADING' })
  assert.deepEqual(selection.update(without), NOTHING)
  assert.deepEqual(selection.update(answer(STATUSES)), NOTHING)
  assert.deepEqual(selection.update(without), NOTHING)
  assert.deepEqual(selection.update(without), { ...NOTHING, left: ['ETHUSDT'] })
  assert.deepEqual(selection.update(without), NOTHING)
  assert.deepEqual(selection.update(answer(STATUSES)), { ...NOTHING, joined: ['ETHUSDT'] })
})

test('a named list is used unchanged while the exchange does not answer', () => {
  assert.deepEqual(sorted(select(['BTCUSDT', 'ANYUSDT'], null).subscribed), ['ANYUSDT', 'BTCUSDT'])
})

test('each shard takes its symbols, and a shard without any of a named list is refused', () => {
  const [one] = Object.keys(STATUSES)
  const index = 1 - partitionOf(String(one), 2)
  const shard = (symbols: string[]) =>
    new SymbolSelection({ symbols, shard: { index, count: 2 }, restUrl: 'https://exchange' })
  assert.throws(() => shard([String(one)]).begin(answer(STATUSES), new Set()), TapelineError)
  const all = shard(['*'])
  all.begin(answer(STATUSES), new Set(Object.keys(STATUSES)))
  const own = Object.keys(STATUSES).filter((symbol) => partitionOf(symbol, 2) === index)
  assert.deepEqual(sorted(all.subscribed), sorted(own))
  assert.equal(all.leftOut.get(String(one)), 'other shard')
})

test('N1 joining streams fill the connections that have room, and only the rest opens another', () => {
  const names = Array.from({ length: 1030 }, (_, index) => `s${index}@trade`)
  const plans = planConnections('wss://exchange', names, 'millisecond')
  const joining = Array.from({ length: 1020 }, (_, index) => `n${index}@trade`)
  const changed = changePlans('wss://exchange', plans, joining, new Set(names.slice(0, 4)), 'millisecond')
  assert.deepEqual([changed.length, changed[0]?.streams.length, changed[1]?.streams.length], [2, 1024, 1022])
  assert.deepEqual(changed.flatMap(({ streams }) => streams).sort(), [...names.slice(4), ...joining].sort())
  const [same, other] = changePlans('wss://exchange', changed, ['last@trade'], new Set(), 'millisecond')
  assert.equal(same, changed[0], 'a connection without new streams is unchanged')
  assert.equal(other?.streams.at(-1), 'last@trade')
  assert.equal(changePlans('wss://exchange', changed, ['a', 'b', 'c'], new Set(), 'millisecond').length, 3)
})

test('N4 a listed symbol is recorded from its first id also if the process ends before its first event', () => {
  const first = new AcknowledgedState()
  first.beginAtFirstId('NEWUSDT', ['trade'])
  const record = checkpointText({ ...emptyCheckpoint('one'), ...first.snapshot('NEWUSDT'), kind: 'start' })
  const next = new AcknowledgedState()
  next.restore('NEWUSDT', parseCheckpoint(record))
  assert.equal(next.snapshot('NEWUSDT').trade?.last, -1)
  next.event({ symbol: 'NEWUSDT', type: 'trade', epoch: 0, firstId: 7, id: 7, timeMs: 1 })
  const { trade, aggTrade } = next.snapshot('NEWUSDT')
  assert.deepEqual(trade?.holes, [{ from: 0, to: 6 }])
  assert.equal(aggTrade, null)
})

const never = async () => assert.fail('no request is expected')

/** The changes with new symbols that a watch reports for these consecutive answers. */
async function watched(
  answers: ReadonlyArray<Record<string, string>>,
  firstTradeMs: SymbolWatchOptions['firstTradeMs'],
  { clock = new VirtualClock(), stopsWhileAsking = false } = {},
): Promise<SelectionChange[]> {
  const stopping = new AbortController()
  const changes: SelectionChange[] = []
  const [first = {}, ...later] = answers
  const ask = async () => {
    if (stopsWhileAsking) stopping.abort(new Error('stopping'))
    return answer(later.length > 1 ? (later.shift() ?? {}) : (later[0] ?? {}))
  }
  const onChange = async (change: SelectionChange) => void changes.push(change)
  const options = { clock, everyMs: 60_000, ask, firstTradeMs, onChange }
  const log = createLogger('test', 'silent')
  const running = new SymbolWatch(options, select(['*'], first), log).run(stopping.signal)
  await clock.advance(300_000)
  stopping.abort()
  await clock.advance(1)
  await running
  return changes.filter(({ added }) => added.length > 0)
}

const BEFORE = { ...STATUSES, NEWUSDT: 'BREAK' }
const AFTER = { ...STATUSES, NEWUSDT: 'TRADING', LUNAUSDT: 'TRADING' }

test('N4 a symbol listed before its first trade is recorded from its first id', async () => {
  const clock = new VirtualClock()
  const startedMs = clock.wallMicros() / 1000
  const firstTradeMs = async (symbol: string) => startedMs + (symbol === 'NEWUSDT' ? 90_000 : -1e9)
  const [change] = await watched([BEFORE, BEFORE, AFTER], firstTradeMs, { clock })
  assert.deepEqual([sorted(change?.added ?? []), change?.listed], [['LUNAUSDT', 'NEWUSDT'], ['NEWUSDT']])
})

test('N4 a symbol joins at once, recorded from now on, while REST does not answer with its first trade', async () => {
  const unanswered = (_symbol: string, signal: AbortSignal) =>
    new Promise<never>((_, reject) =>
      signal.addEventListener('abort', () => reject(signal.reason), { once: true }),
    )
  const [change] = await watched([BEFORE, AFTER], unanswered)
  assert.deepEqual([sorted(change?.added ?? []), change?.listed], [['LUNAUSDT', 'NEWUSDT'], []])
})

test('N4 the first trades of a whole market that resumes are not requested', async () => {
  const market = (status: string) =>
    Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`S${i}USDT`, status]))
  const [change] = await watched([market('BREAK'), market('TRADING')], never)
  assert.deepEqual([change?.added.length, change?.listed], [30, []])
})

test('N1 an answer that arrives during the shutdown changes nothing', async () => {
  const answers = [STATUSES, { ...STATUSES, NEWUSDT: 'TRADING' }]
  assert.deepEqual(await watched(answers, never, { stopsWhileAsking: true }), [])
})
