import assert from 'node:assert/strict'
import { test } from 'node:test'
import { commandOf, parseOptions } from '../chaos/options.ts'
import { OutageBook, uncovered } from '../chaos/outages.ts'
import { planFaults } from '../chaos/schedule.ts'
import { FAULT_KINDS, parseFault } from '../src/sandbox/simulator/faults/fault-kinds.ts'

const plan = (...args: string[]) => planFaults(parseOptions(args))

test('a seed gives the same faults again, another seed others, and the command that is printed the same run', () => {
  const args = ['--seed', '7', '--for', '3m', '--kills', 'broker=2', '--also', '403']
  assert.deepEqual(plan(...args), plan(...args))
  assert.notDeepEqual(plan(...args), plan('--seed', '8', ...args.slice(2)))
  const options = parseOptions(args)
  const again = commandOf(options).split(' ').slice(4)
  assert.deepEqual(parseOptions(again), options)
})

test('ten minutes have at least 60 faults of processes, of each kind on each part, all within their time', () => {
  for (let seed = 0; seed < 50; seed++) {
    const { processFaults } = plan('--for', '10m', '--seed', String(seed))
    assert(processFaults.length >= 60, `seed ${seed}: ${processFaults.length}`)
    const kinds = new Set(processFaults.map(({ part, kind }) => `${part} ${kind}`))
    assert.equal(kinds.size, 12, `seed ${seed}`)
    for (const { atMs } of processFaults) assert(atMs >= 0 && atMs < 600_000, `seed ${seed}`)
  }
})

test('kills are exactly as many as asked for, and only of the parts that were named otherwise', () => {
  for (let seed = 0; seed < 50; seed++) {
    const { processFaults } = plan(
      ...[
        '--for',
        '5m',
        '--seed',
        String(seed),
        '--parts',
        'ingestion,broker',
        '--kills',
        'ingestion=3,broker=1',
      ],
    )
    const kills = processFaults.filter(({ kind }) => kind === 'kill').map(({ part }) => part)
    assert.deepEqual(kills.sort(), ['broker', 'ingestion', 'ingestion', 'ingestion'], `seed ${seed}`)
    assert(processFaults.every(({ part }) => part === 'ingestion' || part === 'broker'))
  }
})

test('faults of the exchange are of every kind that it knows, make sense to it, and end by themselves', () => {
  const { exchangeFaults } = plan('--for', '10m', '--seed', '3')
  const requests = exchangeFaults.flatMap(({ act }) => (act.type === 'add' ? act.requests : []))
  const absent = exchangeFaults.flatMap(({ act }) => (act.type === 'absent' ? [act.how] : []))
  for (const request of requests) {
    const spec = parseFault(request)
    assert(
      spec.kind === 'cut' || spec.kind === 'serverShutdown' || ('forMs' in spec && spec.forMs !== undefined),
    )
  }
  const kinds = new Set([...requests.map(({ kind }) => kind), ...absent])
  assert.deepEqual(
    FAULT_KINDS.filter((kind) => !kinds.has(kind)),
    ['restartIds'],
  )
  const forms = new Set(exchangeFaults.map(({ name }) => name))
  for (const form of ['text', 'truncated', 'binary', 'oversized', 'protocol'])
    assert(forms.has(`garbage ${form}`), form)
  assert.deepEqual(plan('--no-exchange-faults').exchangeFaults, [])
})

test('an outage is what was seen to be one at both ends, and a pause that must have dropped the connection', () => {
  const book = new OutageBook()
  for (const [atMs, connections] of [
    [0, 1],
    [10, 0],
    [20, 0],
    [30, 1],
    [40, 2],
    [50, 1],
  ] as const)
    book.observe(atMs, connections)
  book.processPaused(100, 3000)
  book.processPaused(5000, 15_000)
  assert.deepEqual(
    book.list().map(({ fromMs, toMs }) => [fromMs, toMs]),
    [
      [10, 20],
      [5000, 15_000],
    ],
  )
})

test('what windows leave of an outage is found, wherever it lies', () => {
  const windows = [
    { fromMs: 30, toMs: 40 },
    { fromMs: 0, toMs: 12 },
    { fromMs: 35, toMs: 38 },
  ]
  assert.deepEqual(uncovered({ fromMs: 10, toMs: 50 }, windows), [
    { fromMs: 12, toMs: 30 },
    { fromMs: 40, toMs: 50 },
  ])
  assert.deepEqual(uncovered({ fromMs: 1, toMs: 12 }, windows), [])
})
