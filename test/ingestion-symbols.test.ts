import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pino } from 'pino'
import { TapelineError } from '../src/foundation/runtime/errors.ts'
import { resolveSymbols } from '../src/ingestion/symbols.ts'

const STATUSES = new Map([
  ['BTCUSDT', 'TRADING'],
  ['ETHUSDT', 'TRADING'],
  ['LUNAUSDT', 'BREAK'],
  ['BNBUSDT', 'HALT'],
])

/** What is taken of the given settings, and what is said on the way. */
async function resolve(...symbols: string[]) {
  const lines: string[] = []
  const log = pino({ level: 'warn' }, { write: (line: string) => lines.push(line) })
  const config = { symbols, shard: { index: 0, count: 1 }, restUrl: 'https://exchange' }
  const taken = await resolveSymbols(config, async () => STATUSES, log, new AbortController().signal)
  return { taken, said: lines.join('') }
}

test('a halted symbol is named and taken all the same: it does not keep the others from starting', async () => {
  const { taken, said } = await resolve('BTCUSDT', 'LUNAUSDT', 'BNBUSDT')
  assert.deepEqual(taken, ['BTCUSDT', 'LUNAUSDT', 'BNBUSDT'])
  assert.match(said, /LUNAUSDT \(BREAK\), BNBUSDT \(HALT\)/)
  assert.doesNotMatch(said, /BTCUSDT/)
})

test('a symbol that the exchange does not know stops the start, and is named', async () => {
  await assert.rejects(
    resolve('BTCUSDT', 'LUNAUSDT', 'BTCUSTD'),
    (error) => error instanceof TapelineError && /: BTCUSTD$/.test(error.message),
  )
})

test('* takes what trades, and nothing is said of the rest', async () => {
  assert.deepEqual(await resolve('*'), { taken: ['BTCUSDT', 'ETHUSDT'], said: '' })
})
