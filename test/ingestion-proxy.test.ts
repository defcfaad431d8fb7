import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer as createPlainServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { createServer } from 'node:tls'
import { openSocket } from '../src/foundation/binance/stream-socket.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { createAuthority } from './support/certificates.ts'
import { startForwardProxy } from './support/forward-proxy.ts'
import { FAST } from './support/ingestion-parts.ts'
import { createTestTopics } from './support/kafka.ts'
import { closeServer, listen } from './support/loopback.ts'
import { readTopic } from './support/messages.ts'
import { startTapeline } from './support/processes.ts'
import { startIngestionProcess } from './support/services.ts'
import { until, within } from './support/wait-for.ts'

/** A simulated exchange under names that only the proxy resolves, with and without private TLS. */
async function scene() {
  const stack = new AsyncDisposableStack()
  const folder = mkdtempSync(join(tmpdir(), 'tapeline-proxy-'))
  const exchange = await startSimulatedExchange({ messagesPerSecond: 200 })
  stack.defer(() => exchange.close())
  const authority = await createAuthority(folder, 'ca')
  const pair = await authority.sign('exchange.invalid', 'DNS:exchange.invalid')
  const plainPort = Number(new URL(exchange.restUrl).port)
  const tls = createServer({ cert: readFileSync(pair.cert), key: readFileSync(pair.key) }, (client) => {
    const upstream = connect(plainPort, '127.0.0.1')
    client.pipe(upstream).pipe(client)
    client.on('error', () => upstream.destroy()).on('close', () => upstream.destroy())
    upstream.on('error', () => client.destroy()).on('close', () => client.destroy())
  })
  await new Promise<void>((done) => tls.listen(0, '127.0.0.1', done))
  stack.defer(() => void tls.close())
  const proxy = stack.use(await startForwardProxy())
  const tlsPort = (tls.address() as AddressInfo).port
  return {
    proxy,
    secure: {
      BINANCE_WS_URL: `wss://exchange.invalid:${tlsPort}`,
      BINANCE_REST_URL: `https://exchange.invalid:${tlsPort}`,
      HTTPS_PROXY: proxy.url,
      NODE_EXTRA_CA_CERTS: authority.cert,
    },
    plain: {
      BINANCE_WS_URL: `ws://exchange.invalid:${plainPort}`,
      BINANCE_REST_URL: `http://exchange.invalid:${plainPort}`,
      HTTP_PROXY: proxy.url,
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  }
}

for (const kind of ['secure', 'plain'] as const) {
  test(`streams and REST use the proxy of the environment, ${kind}`, async () => {
    await using parts = await scene()
    await using topics = await createTestTopics({ prefix: 'proxy' })
    await using ingestion = await startIngestionProcess({ ...topics.env, ...parts[kind], ...FAST })
    await until(
      'trades through the proxy',
      async () => (await readTopic(topics.env.KAFKA_TRADES_TOPIC)).length > 20,
    )
    await ingestion.stop()
    const { host } = new URL(parts[kind].BINANCE_REST_URL)
    assert.ok(parts.proxy.tunnels.length >= 3, 'the identity check, REST and the streams')
    assert.deepEqual([...new Set(parts.proxy.tunnels)], [host])
    assert.doesNotMatch(ingestion.command.output(), /s3cret-word/)
  })
}

test('NO_PROXY hosts and this machine are reached directly, and a refused password is reported without showing it', async () => {
  await using parts = await scene()
  await using topics = await createTestTopics({ prefix: 'proxy' })
  const wrong = parts.secure.HTTPS_PROXY.replace('s3cret-word', 'wr0ng-word')
  for (const [env, problem] of [
    [{ ...parts.secure, NO_PROXY: 'exchange.invalid' }, /ENOTFOUND|EAI_AGAIN/],
    [{ ...parts.secure, HTTPS_PROXY: wrong }, /407/],
  ] as const) {
    await using ingestion = await startIngestionProcess({ ...topics.env, ...env, ...FAST })
    await until(String(problem), () => problem.test(ingestion.command.output()))
    await ingestion.stop()
    assert.doesNotMatch(ingestion.command.output(), /wr0ng-word|s3cret-word/)
  }
  assert.deepEqual(parts.proxy.tunnels, [])
})

for (const [protocol, variable] of [
  ['ws', 'HTTP_PROXY'],
  ['wss', 'HTTPS_PROXY'],
] as const) {
  test(`a handshake fails after a limit while the proxy does not answer, ${protocol}`, async () => {
    const open = new Set<Socket>()
    const silent = createPlainServer((client) => {
      open.add(client)
      client
        .resume()
        .on('error', () => {})
        .on('close', () => open.delete(client))
    })
    process.env[variable] = `http://127.0.0.1:${await listen(silent)}`
    try {
      const failed = Promise.withResolvers<unknown>()
      openSocket(`${protocol}://exchange.invalid/stream`, {
        onOpen: () => assert.fail('the proxy has opened a tunnel'),
        onFailed: failed.resolve,
        onFrame: () => {},
        onPing: () => {},
        onClose: () => assert.fail('it was never open'),
      })
      const error = await within(15_000, 'the failure', () => failed.promise)
      assert.match(String(error), /exchange\.invalid has not answered the WebSocket handshake within 10 s/)
      await until('the end of the connection to the proxy', () => open.size === 0, 5000)
    } finally {
      delete process.env[variable]
      await closeServer(silent, open)
    }
  })
}

test('a proxy that is no HTTP URL is refused, and no part of it is shown', async () => {
  await using parts = await scene()
  await using topics = await createTestTopics({ prefix: 'proxy' })
  for (const proxy of ['http://desk:s3cret#word@127.0.0.1:1', 'socks5://desk:s3cret-word@127.0.0.1:1']) {
    const env = { ...parts.secure, HTTPS_PROXY: proxy, ...FAST }
    await using ingestion = await startIngestionProcess({ ...topics.env, ...env })
    assert.equal((await ingestion.command.exit()).code, 2, ingestion.command.output())
    await using doctor = startTapeline(['doctor'], { env })
    await doctor.exit(120_000)
    for (const output of [ingestion.command.output(), doctor.output()]) {
      assert.match(output, /proxy .* is not an http:\/\/ or https:\/\/ URL/)
      assert.doesNotMatch(output, /s3cret/)
    }
  }
})

test('capture uses the proxy, and doctor shows it without its password', async () => {
  await using parts = await scene()
  const folder = mkdtempSync(join(tmpdir(), 'tapeline-proxy-'))
  const env = { ...parts.secure, SYMBOLS: 'BTCUSDT' }
  await using capture = startTapeline(['capture', join(folder, 'frames.raw'), '--for', '2s'], { env })
  await capture.assertExit(0)
  await using doctor = startTapeline(['doctor'], { env })
  await doctor.exit(120_000)
  assert.match(doctor.output(), /through the proxy http:\/\/desk:\*\*\*@127\.0\.0\.1/)
  assert.doesNotMatch(doctor.output(), /s3cret-word/)
})
