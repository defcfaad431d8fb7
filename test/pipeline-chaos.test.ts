import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { test } from 'node:test'

const MAIN = resolve(import.meta.dirname, '../chaos/main.ts')
/** Limit for waits within a run; the run itself has limits too. */
const LIMIT_MS = 300_000

const SHORT_RUN = [
  ...[
    '--for',
    '40s',
    '--rate',
    '600',
    '--seed',
    '20',
    '--every',
    '15s',
    '--exchange-every',
    '1300ms',
    '--quiet',
    '2m',
  ],
  ...['--kills', 'ingestion=1,consumer=1,broker=1,database=1'],
  // These runs test the recovery, not the default waiting times.
  ...[
    '--set',
    'BACKOFF_INITIAL_MS=200',
    '--set',
    'BACKOFF_MAX_MS=2000',
    '--set',
    'KAFKA_SESSION_TIMEOUT_MS=6000',
  ],
]

/** Runs chaos as a process. @returns its exit code and output */
async function chaos(
  args: readonly string[],
  onOutput: (output: string, stop: () => void) => void = () => {},
) {
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const limit = setTimeout(() => child.kill('SIGTERM'), LIMIT_MS)
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
      onOutput(output, () => child.kill('SIGTERM'))
    })
  }
  try {
    const [code] = await once(child, 'close')
    return { code, output }
  } finally {
    clearTimeout(limit)
  }
}

test('nothing is lost, duplicated or unaccounted for when every part is killed under load and the exchange misbehaves', {
  timeout: LIMIT_MS + 30_000,
}, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'chaos-'))
  context.after(() => rmSync(folder, { recursive: true, force: true }))
  const json = join(folder, 'result.json')
  const { code, output } = await chaos([...SHORT_RUN, '--json', json])
  assert.equal(code, 0, output)
  const result: unknown = JSON.parse(readFileSync(json, 'utf8'))
  const faults: Record<string, number> = Reflect.get(Object(result), 'faults')
  for (const part of ['ingestion', 'consumer', 'broker', 'database'])
    assert.equal(faults[`${part} kill`], 1, output)
  assert(Object.keys(faults).length > 20, output)
  assert.match(output, /Verdict: everything holds\. Seed 20\./)
})

const SHORT_CLUSTER_RUN = [
  ...['--for', '30s', '--rate', '600', '--seed', '57', '--brokers', '3', '--quiet', '2m', '--cadence', '14s'],
  ...['--kills', 'broker=1', '--every', '7s', '--parts', 'ingestion,consumer'],
  ...['--clock-every', '9s', '--clock-steps=+2h,-50m'],
]

test('nothing is lost, duplicated or unaccounted for on three brokers while leaders, replicas and clocks change', {
  timeout: LIMIT_MS + 30_000,
}, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'chaos-'))
  context.after(() => rmSync(folder, { recursive: true, force: true }))
  const json = join(folder, 'result.json')
  const { code, output } = await chaos([...SHORT_CLUSTER_RUN, '--json', json])
  assert.equal(code, 0, output)
  const result = Object(JSON.parse(readFileSync(json, 'utf8')))
  const kinds = Object.keys(result.faults)
  for (const kind of [
    'rolling restart',
    'election',
    'reassignment',
    'broker kill',
    'ingestion pause',
    'consumer pause',
  ])
    assert(kinds.includes(kind), `${kind}\n${output}`)
  assert(result.acknowledgements.count >= 0 && kinds.some((kind) => kind.includes('clock')), output)
})

test('an aborted run ends at once, prints the command to repeat it, and leaves no process', async () => {
  const { code, output } = await chaos(['--for', '60s', '--seed', '1', '--rate', '100'], (said, stop) => {
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
  const { code, output } = await chaos(['--kills', 'kafka=3'])
  assert.equal(code, 2)
  assert.match(
    output,
    /--kills <list>' argument 'kafka=3' is invalid\. Expected counts like ingestion=3,broker=1/,
  )
  const help = await chaos(['--help'])
  assert.deepEqual([help.code, help.output.includes('$ npm run chaos -- --for 60s --seed 7')], [0, true])
})
