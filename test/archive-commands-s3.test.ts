import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { withArchive } from '../src/foundation/archive/archive-reader.ts'
import { CommitChain } from '../src/foundation/archive/commit-chain.ts'
import { archiveHistory } from '../src/tools/history/archive-history.ts'
import { dailyFile } from '../src/tools/history/daily-file.ts'
import { createArchive, MIDNIGHT_MS } from './support/archive-parts.ts'
import { column } from './support/columns.ts'
import { startTapeline } from './support/processes.ts'
import { gapRow, record, TOPIC_ID, tradeValue } from './support/records.ts'
import { openTestS3Store, S3_CREDENTIALS, startS3Server } from './support/s3.ts'

const server = await startS3Server()
after(() => ('skip' in server ? undefined : server[Symbol.asyncDispose]()))

function trade(id: number, afterMs: number) {
  return record(tradeValue({ t: id, T: MIDNIGHT_MS + afterMs, E: MIDNIGHT_MS + afterMs }))
}

test('a segment of the ledger with other content is refused, also when its record is folded', {
  skip: 'skip' in server ? server.skip : false,
}, async () => {
  if ('skip' in server) return
  const prefix = randomUUID()
  await using opened = openTestS3Store(server.url, { prefix })
  const { store, cacheFolder } = opened
  await using all = await createArchive('simulated', store)
  await all.add('gaps', [record(Buffer.from(JSON.stringify(gapRow())), null, { schema: 'gap/1' })])
  const [key = ''] = await store.list('_segments/gaps')
  const content = (await store.read(key)) ?? Buffer.alloc(0)
  content.writeUInt8(content.readUInt8(10) ^ 1, 10)
  await store.remove(key)
  await store.create(key, content)
  const ledger = async () => {
    const env = {
      ...S3_CREDENTIALS,
      ARCHIVE_URL: `s3://tapeline/${prefix}`,
      ARCHIVE_S3_ENDPOINT: server.url,
      ARCHIVE_CACHE: join(cacheFolder, randomUUID()),
    }
    await using running = startTapeline(['sql', '--archive', 'SELECT * FROM gaps'], { env })
    await running.assertExit(1)
    return running.output()
  }
  assert.match(await ledger(), new RegExp(`${key}: its SHA-256 is`))
  const chain = new CommitChain(store, { topic: 'gaps', topicId: TOPIC_ID, partition: 0 })
  const head = await chain.head()
  assert.ok(head !== null)
  await chain.foldTo(head)
  assert.match(await ledger(), new RegExp(`${key}: its SHA-256 is`))
})

test('commands read an archive in a bucket, and check the objects and not their copies', {
  skip: 'skip' in server ? server.skip : false,
}, async () => {
  if ('skip' in server) return
  const prefix = randomUUID()
  await using opened = openTestS3Store(server.url, { prefix })
  const { store, cacheFolder } = opened
  await using all = await createArchive('simulated', store)
  await all.add('trades', [trade(1, 0), trade(2, 1)])
  await all.publish()
  await all.add('trades', [trade(2, 1), trade(3, 2)])
  const run = async (exitCode: number, ...args: string[]) => {
    const env = {
      ...S3_CREDENTIALS,
      ARCHIVE_URL: `s3://tapeline/${prefix}`,
      ARCHIVE_S3_ENDPOINT: server.url,
      ARCHIVE_CACHE: cacheFolder,
    }
    await using running = startTapeline(args, { env })
    await running.assertExit(exitCode)
    return running.output()
  }
  const count = 'SELECT count(*) AS trades FROM raw_trades'
  assert.match(await run(0, 'sql', '--archive', count), /3/)
  assert.match(
    await run(0, 'archive', 'files', '--day', '2024-08-09'),
    new RegExp(`^s3://tapeline/${prefix}/raw_trades/date=2024-08-09/.*\\.parquet$`, 'm'),
  )
  assert.match(await run(0, 'archive', 'status'), /raw_trades +\| 2024-08-09/)
  assert.match(await run(0, 'archive', 'check'), /Nothing is wrong/)
  const [key = ''] = await store.list('raw_trades')
  const content = (await store.read(key)) ?? Buffer.alloc(0)
  content.writeUInt8(content.readUInt8(100) ^ 1, 100)
  await store.remove(key)
  await store.create(key, content)
  assert.match(await run(1, 'archive', 'check'), new RegExp(`${key}: .* another SHA-256`))
  await store.remove(key)
  assert.match(await run(1, 'archive', 'check'), new RegExp(`${key}.* missing`))
})

test('a file that history check has compared is no longer in use', {
  skip: 'skip' in server ? server.skip : false,
}, async () => {
  if ('skip' in server) return
  const prefix = randomUUID()
  await using opened = openTestS3Store(server.url, { prefix })
  const { store, cacheFolder } = opened
  await using all = await createArchive('simulated', store)
  await all.add('trades', [trade(1, 0), trade(2, 1)])
  await all.publish()
  const access = { endpoint: server.url, region: 'us-east-1', cacheFolder, cacheBytes: 1 << 30 }
  const options = { url: `s3://tapeline/${prefix}`, access, memoryBytes: 256 << 20, tempFolder: null }
  await withArchive(options, async (reader) => {
    const file = dailyFile('BTCUSDT-trades-2024-08-09.zip')
    const rows = (await Array.fromAsync(archiveHistory(reader).rowsOf(file))).flat()
    assert.deepEqual(column(rows, 'id'), [1, 2])
    const copies = readdirSync(join(cacheFolder, 'files')).map((name) => join(cacheFolder, 'files', name))
    assert.ok(copies.length > 0)
    for (const path of copies) assert.equal(statSync(path).nlink, 1, 'a file with two links is in use')
  })
})
