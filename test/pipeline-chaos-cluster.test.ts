import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { Acknowledgements, acknowledgementFigures } from '../chaos/acknowledgements.ts'
import { reassignments } from '../chaos/cluster-faults.ts'
import { Probe } from '../chaos/probe.ts'
import { heapSlopeOf, slopeOf } from '../chaos/slopes.ts'
import { apartFrom, isRight, stampedOnlyBy } from '../chaos/stamps.ts'
import type { IngestionStatus } from '../src/foundation/telemetry/status.ts'
import { Random } from '../src/sandbox/simulator/market/random.ts'
import { until } from './support/wait-for.ts'

const HOUR_MS = 3_600_000
const span = (fromMs: number, toMs: number) => ({ fromMs, toMs })

test('Kafka is silent from its last new acknowledgement, while messages wait or ingestion does not answer', () => {
  const book = new Acknowledgements()
  const see = (atMs: number, acknowledged: number | null, queued = 1) => {
    const counters = { acknowledged, queued, inFlight: 0 }
    // The record uses nothing else.
    const status = acknowledged === null ? null : ({ counters } as IngestionStatus)
    book.observe({ atMs, ready: true, status })
  }
  for (const [atMs, acknowledged] of [
    [0, 10],
    [250, 20],
    [500, 20],
    [1500, 20],
    [1750, 21],
  ] as const)
    see(atMs, acknowledged)
  see(5000, 21, 0)
  see(5250, 21, 5)
  see(5500, null)
  see(9000, 4)
  assert.deepEqual(book.silences(), [span(250, 1750), span(1750, 5000), span(5000, 9000)])
})

test('reports the longest silence with the faults of its time, separately from faults of ingestion', () => {
  const incident = (name: string, fromMs: number, toMs: number) => ({
    name,
    from: new Date(fromMs).toISOString(),
    to: new Date(toMs).toISOString(),
  })
  const silences = [span(100_000, 103_000), span(200_000, 209_000)]
  const incidents = [
    incident('broker 2 kill', 99_000, 110_000),
    incident('election', 20_000, 20_100),
    incident('ingestion kill', 200_000, 204_000),
  ]
  const { longest, longestWhileStruck, count } = acknowledgementFigures(silences, incidents)
  assert.deepEqual([longest?.ms, longest?.during], [3000, ['broker 2 kill']])
  assert.deepEqual([longestWhileStruck?.ms, longestWhileStruck?.during], [9000, ['ingestion kill']])
  assert.equal(count, 2)
})

test('a reassigned partition leaves its leader, and returns with another order of its replicas', () => {
  const random = new Random(3)
  for (let leader = 1; leader <= 3; leader++) {
    const partition = { topic: 't', partition: 0, leader, replicas: [1, 2, 3], inSync: [1, 2, 3] }
    const [without = [], whole = []] = reassignments([partition], random)
    assert.deepEqual(
      without[0]?.replicas.toSorted(),
      [1, 2, 3].filter((node) => node !== leader),
    )
    assert.deepEqual(whole[0]?.replicas.toSorted(), [1, 2, 3])
    assert.notDeepEqual(whole[0]?.replicas, [1, 2, 3])
  }
})

test('the memory slope is that of the process measured longest, without its warm-up', () => {
  const grown = (pid: number, count: number, perMinute: number) =>
    Array.from({ length: count }, (_, index) => ({
      pid,
      atMs: index * 10_000,
      bytes: 2 ** 20 * (index < 6 ? 500 : 50 + (perMinute * index) / 6),
    }))
  const slope = slopeOf([...grown(1, 20, 3), ...grown(2, 40, 0.5)], null)
  assert.equal(slope?.mebibytesPerMinute.toFixed(3), '0.500')
  assert.equal(slopeOf(grown(1, 8, 3), null), null)
  const threads = [0, 1].flatMap((thread) => grown(1, 40, 0.25).map((sample) => ({ ...sample, thread })))
  assert.equal(heapSlopeOf(threads, null)?.mebibytesPerMinute.toFixed(3), '0.500')
})

test("a receipt time is right if it differs from the trade's time by the clock offset of that moment", () => {
  const clocks = [{ fromMs: 1000_000, toMs: 1060_000, stepMs: 8 * HOUR_MS }]
  assert(isRight(900_000, 50, clocks))
  assert(isRight(1030_000, 8 * HOUR_MS + 50, clocks))
  assert(isRight(1001_000, 50, clocks), 'either clock may have been read near the step')
  assert(!isRight(1030_000, 50, clocks), 'the clock was wrong but the receipt time is not')
  assert(!isRight(990_000, 8 * HOUR_MS + 9000, clocks), 'it waited while the clock was set')
  assert(!isRight(900_000, 8 * HOUR_MS, clocks), 'the clock was right but the receipt time is not')
  const stamped = (stepMs: number) => stampedOnlyBy({ ...span(100_000, 110_000), stepMs })
  assert.deepEqual(stamped(HOUR_MS), span(HOUR_MS + 101_000, HOUR_MS + 109_000))
  assert.deepEqual(stamped(2000), span(103_000, 109_000))
  assert.deepEqual(stamped(-2000), span(101_000, 107_000))
  assert.deepEqual(apartFrom([span(1062_000, 1064_000), span(0, 1)], clocks), [span(0, 1)])
})

test('a service sees a wrong wall clock at once, but right durations; its heap is measured', async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'probe-'))
  const probe = new Probe(folder, 'service', true, 100)
  const script = `
    const durations = performance.now()
    process.stdin.on('data', () => console.log(JSON.stringify([Date.now(), new Date().getTime(), +new Date(5), performance.now() - durations])))
    process.stdin.on('end', () => process.exit())`
  const child = spawn(process.execPath, ['-e', script], {
    env: { ...process.env, ...probe.environment() },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  context.after(() => child.kill('SIGKILL'))
  const lines = createInterface({ input: child.stdout })
  const ask = async (): Promise<number[]> => {
    const line = once(lines, 'line')
    child.stdin.write('?')
    return JSON.parse(String((await line)[0]))
  }
  const offHours = (value = 0) => Math.round((value - Date.now()) / HOUR_MS) + 0
  for (const hours of [0, 8, -1, 0]) {
    probe.setClock(hours * HOUR_MS)
    const readings = await until(`a clock that is ${hours} h off`, async () => {
      const answer = await ask()
      return offHours(answer[0]) === hours ? answer : undefined
    })
    assert.equal(offHours(readings[1]), hours)
    assert.equal(readings[2], 5, 'a Date of an explicit time is unchanged')
    assert(Math.abs(readings[3] ?? Number.NaN) < 60_000)
  }
  const [sample] = await until('a measurement of the heap', () =>
    probe.heap().length > 0 ? probe.heap() : undefined,
  )
  assert.equal(sample?.pid, child.pid)
  assert(Math.abs((sample?.atMs ?? 0) - Date.now()) < 60_000 && (sample?.bytes ?? 0) > 1e6)
  child.stdin.end()
  await once(child, 'exit')
})
