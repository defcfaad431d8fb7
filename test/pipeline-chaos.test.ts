import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CHAOS_TIMEOUT, chaos, cleanChaos } from './support/chaos-run.ts'

const SHORT_RUN = [
  '--for 40s --rate 600 --seed 20 --every 15s --exchange-every 1300ms --quiet 2m',
  '--kills ingestion=1,consumer=1,broker=1,database=1 --depth --instants 100',
  // The run tests the recovery, not the default waiting times.
  '--set BACKOFF_INITIAL_MS=200 --set BACKOFF_MAX_MS=2000 --set KAFKA_SESSION_TIMEOUT_MS=6000',
]

test(
  'nothing is lost, duplicated or unaccounted for when every part is killed under load and the exchange misbehaves',
  CHAOS_TIMEOUT,
  async () => {
    const { output, result } = await cleanChaos(SHORT_RUN.join(' '))
    for (const part of ['ingestion', 'consumer', 'broker', 'database'])
      assert.equal(result.faults[`${part} kill`], 1, output)
    assert(Object.keys(result.faults).length > 20, output)
    assert.match(output, /Verdict: everything holds\. Seed 20\./)
    assert.match(output, /Order books .* of 100 instants, \d{4,} levels, 0 wrong/)
  },
)

test('an aborted run ends at once, prints the command to repeat it, and leaves no process', async () => {
  const { code, output } = await chaos('--for 60s --seed 1 --rate 100', (said, stop) => {
    if (said.includes('faults of processes')) stop()
  })
  assert.equal(code, 1)
  assert.match(
    output,
    /The run was not completed: stopped by SIGTERM\nThe same faults again: npm run chaos -- --seed 1 /,
  )
  assert.doesNotMatch(output, /left running/)
})

test('reports invalid options, and starts nothing', async () => {
  const { code, output } = await chaos('--kills kafka=3')
  assert.equal(code, 2)
  assert.match(output, /'kafka=3' is invalid\. Expected counts like ingestion=3,broker=1/)
  const help = await chaos('--help')
  assert.deepEqual([help.code, help.output.includes('$ npm run chaos -- --for 60s --seed 7')], [0, true])
})
