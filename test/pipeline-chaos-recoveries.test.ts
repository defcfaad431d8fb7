import assert from 'node:assert/strict'
import { test } from 'node:test'
import { figuresOf } from '../chaos/figures.ts'
import { Recoveries } from '../chaos/recoveries.ts'

const ingestion = (ages: readonly number[], oldestUnacknowledgedMs = 0) => {
  const seen = { events: 1, lastId: 1, quiet: false }
  const streams = ages.map((lastSeenAgeMs, i) => [`${i}`, { ...seen, lastSeenAgeMs }] as const)
  return { streams: Object.fromEntries(streams), oldestUnacknowledgedMs }
}

const consumer = (inserted: number, uptimeMs: number) => ({
  uptimeMs,
  counters: { inserted, alreadyThere: 0 },
})

test('ingestion has recovered only when every stream has delivered since the fault and Kafka accepts it', () => {
  const recoveries = new Recoveries()
  const over = recoveries.begin('cut', ['ingestion'], 1000)
  const see = (atMs: number, status: ReturnType<typeof ingestion>, ready = true) => {
    recoveries.ingestion({ atMs, ready, status })
    return recoveries.done().length
  }
  assert.equal(see(1500, ingestion([0, 0])), 0, 'the fault is still active')
  over(2000)
  assert.equal(see(2500, ingestion([100, 600])), 0, 'one stream has not delivered since')
  assert.equal(see(2600, ingestion([0, 0], 9000)), 0, 'Kafka does not acknowledge')
  assert.equal(see(2700, ingestion([0, 0]), false), 0, 'GET / is not 200')
  assert.deepEqual(recoveries.unhealed(), ['cut (ingestion)'])
  assert.equal(see(3000, ingestion([100, 200])), 1)
  assert.deepEqual(recoveries.done(), [{ kind: 'cut', heldMs: 1000, toHealthyMs: 2000 }])
})

test('the consumer has recovered only when it has stored rows since the fault, whether it was killed or not', () => {
  const recoveries = new Recoveries()
  recoveries.begin('database kill', ['consumer'], 1000)(2000)
  recoveries.consumer({ atMs: 2500, ready: true, status: consumer(500, 60_000) })
  recoveries.consumer({ atMs: 3000, ready: true, status: consumer(500, 60_500) })
  assert.equal(recoveries.done().length, 0)
  recoveries.consumer({ atMs: 3500, ready: true, status: consumer(501, 61_000) })
  assert.equal(recoveries.done().length, 1)
  recoveries.begin('consumer kill', ['consumer'], 10_000)(11_000)
  recoveries.consumer({ atMs: 11_500, ready: true, status: consumer(0, 400) })
  assert.equal(recoveries.done().length, 1)
  recoveries.consumer({ atMs: 12_000, ready: true, status: consumer(7, 900) })
  assert.equal(recoveries.done().length, 2)
})

test('median, 90th percentile and maximum are measured values', () => {
  assert.deepEqual(figuresOf([5, 1, 4, 2, 3, 6, 7, 8, 9, 10]), { n: 10, median: 5, p90: 9, max: 10 })
  assert.deepEqual(figuresOf([]), { n: 0, median: 0, p90: 0, max: 0 })
})
