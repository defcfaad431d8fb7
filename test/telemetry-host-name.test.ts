import assert from 'node:assert/strict'
import { request } from 'node:http'
import { test } from 'node:test'
import { startHealthServer } from '../src/foundation/telemetry/health-server.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { dashboardServer } from '../src/tools/dashboard/server.ts'
import { ended } from './support/ended.ts'

function statusOf(url: string, headers: Record<string, string>, method = 'GET'): Promise<number> {
  return new Promise((resolve, reject) => {
    const asked = request(url, { headers, method }, (response) => {
      response.resume()
      resolve(response.statusCode ?? 0)
    })
    asked.once('error', reject)
    asked.end(method === 'POST' ? '{"kind":"drop","count":1}' : undefined)
  })
}

const OWN = ['localhost', 'localhost:1', '127.0.0.1:80', '[::1]:8080', '192.0.2.1', 'tapeline.localhost']
const FOREIGN = ['example.com', 'example.com:8080', 'localhost.example.com', '127.0.0.1.example.com', 'a b']

async function assertOwnNamesOnly(url: string): Promise<void> {
  for (const host of OWN) assert.equal(await statusOf(url, { host }), 200, host)
  for (const host of FOREIGN) assert.equal(await statusOf(url, { host }), 403, host)
}

test('a service answers over loopback only to names of this machine', async () => {
  await using server = ended(
    await startHealthServer(
      { host: '127.0.0.1', port: 0, portSetting: 'INGEST_PORT' },
      { readiness: () => ({ ready: true, reason: '' }), status: () => ({}), metrics: async () => '' },
    ),
    'close',
  )
  await assertOwnNamesOnly(`${server.url}/status`)
})

test('the dashboard answers over loopback only to names of this machine', async () => {
  const past = { moments: [], incidents: [] }
  const observer = { past, hasLooked: true, look: () => null, listen: () => () => {} }
  await using server = ended(
    dashboardServer({ observer, series: async () => [], book: async () => ({ kind: 'none' }) }),
    'close',
  )
  await assertOwnNamesOnly(`${await server.listen({ host: '127.0.0.1', port: 0 })}/readyz`)
})

test('programs can control faults, but web pages cannot', async () => {
  await using exchange = ended(
    await startSimulatedExchange({
      symbols: ['BTCUSDT'],
      messagesPerSecond: 1,
      faultApi: true,
    }),
    'close',
  )
  const url = `${exchange.restUrl}/faults`
  assert.equal(await statusOf(url, {}, 'POST'), 201)
  assert.equal(await statusOf(url, { origin: 'https://example.com' }, 'POST'), 403)
  assert.equal(await statusOf(url, { origin: 'null' }, 'DELETE'), 403)
  assert.equal(exchange.faults.list().length, 1)
})
