import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createLogger } from '../src/foundation/telemetry/log.ts'
import { pipelineAlone } from './support/pipeline-alone.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const CHECKPOINT_MS = 5000

function alone(checkInstances: () => Promise<void>) {
  const clock = new VirtualClock()
  const said: string[] = []
  const log = createLogger('test', 'silent')
  log.warn = (...args: unknown[]) => void said.push(`warn: ${args.at(-1)}`)
  log.info = (...args: unknown[]) => void said.push(`info: ${args.at(-1)}`)
  const { pipeline, acknowledge } = pipelineAlone(clock, ['BTCUSDT'], log, checkInstances)
  let id = 0
  /** One trade, and the messages of the next tick. */
  const tick = async () => {
    const timeMs = Math.floor(clock.wallMicros() / 1000)
    const trade = `{"stream":"btcusdt@trade","data":{"e":"trade","E":${timeMs},"s":"BTCUSDT","t":${++id},"p":"1","q":"1","T":${timeMs},"m":true,"M":true}}`
    pipeline.core.onFrame(Buffer.from(trade), 0)
    acknowledge()
    await clock.advance(CHECKPOINT_MS)
    return acknowledge().filter(({ topic }) => topic.endsWith('checkpoints')).length
  }
  return { pipeline, tick, said }
}

test('C1 checkpoints are not late while the check for other instances hangs', async () => {
  const hung = Promise.withResolvers<void>()
  const { tick } = alone(() => hung.promise)
  for (let n = 0; n < 10; n++) assert.equal(await tick(), 1, `checkpoint ${n}`)
})

test('C4 a failing check for other instances is logged once with its reason, and so is its recovery', async () => {
  let problem: string | null = null
  const { tick, said } = alone(async () => {
    if (problem !== null) throw new Error(problem)
  })
  const after = async (ticks: number) => {
    said.length = 0
    for (let n = 0; n < ticks; n++) await tick()
    return [...said]
  }
  assert.deepEqual(await after(2), [])
  problem = 'leader moved'
  assert.deepEqual(await after(1), [], 'a single failure is not reported')
  problem = 'no right to read'
  assert.deepEqual(await after(20), [
    'warn: Reading what other instances wrote failed, retrying: no right to read',
  ])
  problem = 'no leader'
  assert.deepEqual(await after(20), ['warn: Reading what other instances wrote failed, retrying: no leader'])
  problem = null
  assert.deepEqual(await after(5), ['info: Reading what other instances wrote works again'])
})
