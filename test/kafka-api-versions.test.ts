import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { protocolAPIsByName, Writer } from '@platformatic/kafka'
import { requireAccess } from '../src/foundation/kafka/access.ts'
import { realBrokers } from '../src/foundation/kafka/broker-connections.ts'
import { describeKafkaError } from '../src/foundation/kafka/broker-errors.ts'
import { isTapelineError } from '../src/foundation/runtime/errors.ts'

const [METADATA, API_VERSIONS] = [3, 18]

/** As Kafka 4.4 answers ApiVersions, for the requests that are sent here. */
const KAFKA_4_4 = {
  Produce: [0, 13],
  Fetch: [4, 18],
  ListOffsets: [1, 11],
  Metadata: [0, 13],
  FindCoordinator: [0, 6],
  InitProducerId: [0, 6],
  ApiVersions: [0, 4],
}
type Ranges = Partial<Record<keyof typeof KAFKA_4_4, readonly number[]>>

/** Starts a broker that answers only ApiVersions and Metadata. */
async function startBroker(context: TestContext, ranges: Ranges) {
  const all = Object.entries({ ...KAFKA_4_4, ...ranges })
  const address = { host: '127.0.0.1', port: 0 }
  const answerTo = (apiKey: number): Writer => {
    const writer = Writer.create()
    if (apiKey === API_VERSIONS) {
      writer.appendInt16(0).appendArray(all, (api, [name, [min = 0, max = 0]]) => {
        api.appendInt16(Number(Reflect.get(protocolAPIsByName, name)))
        api.appendInt16(min).appendInt16(max)
      })
      return writer.appendInt32(0).appendTaggedFields()
    }
    assert.equal(apiKey, METADATA)
    writer.appendTaggedFields().appendInt32(0)
    writer.appendArray([address], (broker, { host, port }) => {
      broker.appendInt32(1).appendString(host).appendInt32(port).appendString(null)
    })
    return writer
      .appendString('cluster')
      .appendInt32(1)
      .appendArray([], () => {})
      .appendTaggedFields()
  }
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    let bytes = Buffer.alloc(0)
    socket.on('data', (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk])
      while (bytes.length >= 4 && bytes.length >= 4 + bytes.readInt32BE(0)) {
        const answer = Writer.create()
          .appendInt32(bytes.readInt32BE(8))
          .appendFrom(answerTo(bytes.readInt16BE(4)))
        socket.write(answer.prependLength().buffer)
        bytes = bytes.subarray(4 + bytes.readInt32BE(0))
      }
    })
  })
  server.listen(0, address.host)
  await once(server, 'listening')
  context.after(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const listening = server.address()
  assert.ok(listening !== null && typeof listening === 'object')
  address.port = listening.port
  return { address, connection: { brokers: [`${address.host}:${address.port}`], tls: null, sasl: null } }
}

async function produceTo(context: TestContext, ranges: Ranges): Promise<unknown> {
  const { address, connection } = await startBroker(context, ranges)
  const producer = realBrokers().openProducer(connection, 'tapeline-test')
  context.after(() => producer.close())
  return producer.produce(address, 1000, [{ topic: 't', partition: 0, batch: Buffer.of(0) }])
}

const NEWER = 'upgrade Tapeline, or use a version of Kafka that docs/support.md names.'

test('a broker that no longer supports our versions of Produce is refused with both ranges and the fix', async (context) => {
  await assert.rejects(produceTo(context, { Produce: [12, 14] }), (error) => {
    assert.ok(isTapelineError(error, 'KAFKA'))
    assert.equal(error.message, 'The brokers support Produce 12 to 14; Tapeline supports Produce 9 to 11')
    for (const text of [error.fix, describeKafkaError(error)]) assert.ok(text.endsWith(NEWER), text)
    return true
  })
})

test('a broker that is too old for our versions of Produce is refused with another fix', async (context) => {
  await assert.rejects(produceTo(context, { Produce: [0, 8] }), {
    message: 'The brokers support Produce 0 to 8; Tapeline supports Produce 9 to 11',
    fix: 'Upgrade the brokers to a version of Kafka that docs/support.md names.',
  })
})

for (const [request, range, ours] of [
  ['Metadata', [13, 14], [12, 12]],
  ['Fetch', [18, 19], [13, 17]],
  ['InitProducerId', [6, 6], [4, 5]],
  ['ListOffsets', [10, 11], [6, 9]],
] as const)
  test(`a start finds that the broker no longer supports our versions of ${request}`, async (context) => {
    const { connection } = await startBroker(context, { [request]: range })
    await assert.rejects(requireAccess(connection, 'tapeline-test', { topics: new Map() }), {
      message: `The brokers support ${request} ${range.join(' to ')}; Tapeline supports ${request} ${ours.join(' to ')}`,
    })
  })

test('a start reports a request for which the client has no version', async (context) => {
  const { connection } = await startBroker(context, { FindCoordinator: [7, 8] })
  await assert.rejects(requireAccess(connection, 'tapeline-test', { topics: new Map(), group: 'g' }), {
    code: 'KAFKA',
    message: /no version of a request in common .*FindCoordinator.*support 7 to 8/,
    fix: /docs\/support\.md/,
  })
})
