import assert from 'node:assert/strict'
import { test } from 'node:test'
import { clockFaultName } from '../chaos/clock-faults.ts'
import { CLUSTER_FAULTS } from '../chaos/faults.ts'
import { commandOf, parseOptions } from '../chaos/options.ts'
import { OutageBook, uncovered } from '../chaos/outages.ts'
import { exactEndMs, planFaults } from '../chaos/schedule.ts'
import { FAULT_KINDS, parseFault } from '../src/sandbox/simulator/faults/fault-kinds.ts'

const plan = (...args: string[]) => planFaults(parseOptions(args))

test('a seed gives the same faults again, another seed others, and the printed command repeats the run', () => {
  const args = ['--seed', '7', '--for', '3m', '--kills', 'broker=2', '--also', '403']
  assert.deepEqual(plan(...args), plan(...args))
  assert.notDeepEqual(plan(...args), plan('--seed', '8', ...args.slice(2)))
  const options = parseOptions(args)
  const again = commandOf(options).split(' ').slice(4)
  assert.deepEqual(parseOptions(again), options)
})

test('ten minutes have at least 60 process faults, of each kind on each part, all within their time', () => {
  for (let seed = 0; seed < 50; seed++) {
    const { processFaults } = plan('--for', '10m', '--seed', String(seed))
    assert(processFaults.length >= 60, `seed ${seed}: ${processFaults.length}`)
    const kinds = new Set(processFaults.map(({ part, kind }) => `${part} ${kind}`))
    assert.equal(kinds.size, 12, `seed ${seed}`)
    for (const { atMs } of processFaults) assert(atMs >= 0 && atMs < 600_000, `seed ${seed}`)
  }
})

test('the number of kills is exact, and other faults strike only the named parts', () => {
  for (let seed = 0; seed < 50; seed++) {
    const parts = ['--parts', 'ingestion,broker', '--kills', 'ingestion=3,broker=1']
    const { processFaults } = plan('--for', '5m', '--seed', String(seed), ...parts)
    const kills = processFaults.filter(({ kind }) => kind === 'kill').map(({ part }) => part)
    assert.deepEqual(kills.sort(), ['broker', 'ingestion', 'ingestion', 'ingestion'], `seed ${seed}`)
    assert(processFaults.every(({ part }) => part === 'ingestion' || part === 'broker'))
  }
})

test('the archive and its disk are struck on request, and change no other fault', () => {
  const args = ['--for', '10m', '--seed', '7']
  const { processFaults, diskFaults } = plan(...args, '--archive')
  assert.deepEqual(plan(...args).diskFaults, [])
  assert.ok(diskFaults.length >= 10)
  const kinds = new Set(processFaults.flatMap(({ part, kind }) => (part === 'archive' ? [kind] : [])))
  assert.equal(kinds.size, 3)
  const options = parseOptions([...args, '--archive'])
  assert.deepEqual(parseOptions(commandOf(options).split(' ').slice(4)), options)
  const same = ['--parts', 'ingestion,consumer,broker,database']
  assert.deepEqual(plan(...args, ...same, '--archive'), plan(...args))
})

test('order books are recorded and struck on request', () => {
  const args = ['--for', '10m', '--seed', '7']
  const ofDepth = (...more: string[]) =>
    plan(...args, ...more).exchangeFaults.filter(({ name }) => name.startsWith('depth'))
  assert.deepEqual(ofDepth(), [])
  const faults = ofDepth('--depth')
  assert.equal(new Set(faults.map(({ name }) => name)).size, 7)
  for (const { act } of faults) if (act.type === 'add') for (const one of act.requests) parseFault(one)
  const options = parseOptions([...args, '--depth', '--instants', '5'])
  assert.deepEqual([options.depth, options.instants], [true, 5])
  assert.deepEqual(parseOptions(commandOf(options).split(' ').slice(4)), options)
})

test('exchange faults are of every kind, valid, and end automatically', () => {
  const { exchangeFaults } = plan('--for', '10m', '--seed', '3')
  const requests = exchangeFaults.flatMap(({ act }) => (act.type === 'add' ? act.requests : []))
  const absent = exchangeFaults.flatMap(({ act }) => (act.type === 'absent' ? [act.how] : []))
  for (const request of requests) {
    const spec = parseFault(request)
    const endsAlone = spec.kind === 'cut' || spec.kind === 'serverShutdown'
    assert(endsAlone || ('forMs' in spec && spec.forMs !== undefined))
  }
  const kinds = new Set([...requests.map(({ kind }) => kind), ...absent])
  assert.deepEqual(
    FAULT_KINDS.filter((kind) => !kinds.has(kind)),
    ['swap', 'alter', 'restartIds', 'halt', 'delist', 'list'],
  )
  const forms = new Set(exchangeFaults.map(({ name }) => name))
  for (const form of ['text', 'truncated', 'binary', 'oversized', 'protocol'])
    assert(forms.has(`garbage ${form}`), form)
  assert.deepEqual(plan('--no-exchange-faults').exchangeFaults, [])
})

test('three brokers get every fault of a cluster, clocks every step, and the printed command repeats them', () => {
  const args = [
    ...['--seed', '5', '--for', '20m', '--brokers', '3', '--clock-every', '20s'],
    ...['--clock-steps=+8h,-50m', '--freezes', '3s,90s', '--every', '30s', '--heap'],
  ]
  const options = parseOptions([...args, '--cluster-every', '45s'])
  assert.deepEqual(parseOptions(commandOf(options).split(' ').slice(4)), options)
  const { clusterFaults, clockFaults, processFaults } = planFaults(options)
  assert.deepEqual(new Set(clusterFaults.map(({ kind }) => kind)), new Set(CLUSTER_FAULTS))
  const clocks = new Set(clockFaults.map(clockFaultName))
  for (const part of ['ingestion', 'consumer']) {
    for (const what of ['clock +8h', 'clock -50m', 'start with clock +8h', 'suspend with clock +8h'])
      assert(clocks.has(`${part} ${what}`), `${part} ${what}`)
    assert(!clocks.has(`${part} suspend with clock -50m`), 'no suspend turns the clock back')
  }
  const freezes = processFaults.filter(({ holdMs }) => holdMs === 3000 || holdMs === 90_000)
  assert.deepEqual(
    freezes.map(({ part, kind, holdMs }) => `${part} ${kind} ${holdMs}`),
    ['ingestion pause 3000', 'consumer pause 3000', 'ingestion pause 90000', 'consumer pause 90000'],
  )
  const nodes = processFaults.filter(({ part }) => part === 'broker').map(({ member }) => member % 3)
  assert.deepEqual(new Set(nodes), new Set([0, 1, 2]))
})

test('a cadence is continuous rolling restarts, one election and one reassignment per minute, and no drawn faults', () => {
  const options = parseOptions(['--for', '20m', '--brokers', '3', '--cadence', '1m'])
  const { clusterFaults, clockFaults, processFaults, exchangeFaults } = planFaults(options)
  const times = (kind: string) => clusterFaults.filter((one) => one.kind === kind).length
  assert.deepEqual([times('election'), times('reassignment'), times('rolling restart')], [19, 19, 1])
  const rolling = clusterFaults.find(({ kind }) => kind === 'rolling restart')
  assert.deepEqual([rolling?.atMs, rolling?.untilMs], [0, 1_200_000])
  assert.deepEqual([clockFaults, processFaults, exchangeFaults], [[], [], []])
})

test('an outage of Kafka occurs once, alone, and the run is long enough for it', () => {
  const options = parseOptions(['--outage', '20m'])
  const { clusterFaults, processFaults, exchangeFaults } = planFaults(options)
  assert.equal(clusterFaults.length, 1)
  assert.deepEqual([clusterFaults[0]?.kind, clusterFaults[0]?.holdMs], ['outage', 1_200_000])
  assert.deepEqual([processFaults, exchangeFaults], [[], []])
  assert(exactEndMs(options) > 1_200_000)
  assert.equal(exactEndMs(parseOptions([])), 0)
})

test('an outage counts between its observed ends, and a pause if it must have dropped the connection', () => {
  const book = new OutageBook()
  for (const [index, connections] of [1, 0, 0, 1, 2, 1].entries()) book.observe(index * 10, connections)
  book.processPaused(100, 3000)
  book.processPaused(5000, 15_000)
  const found = book.list().map(({ fromMs, toMs }) => `${fromMs} to ${toMs}`)
  assert.deepEqual(found, ['10 to 20', '5000 to 15000'])
})

test('finds the parts of an outage that windows do not cover', () => {
  const span = (fromMs: number, toMs: number) => ({ fromMs, toMs })
  const windows = [span(30, 40), span(0, 12), span(35, 38)]
  assert.deepEqual(uncovered(span(10, 50), windows), [span(12, 30), span(40, 50)])
  assert.deepEqual(uncovered(span(1, 12), windows), [])
})
