import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { after, test } from 'node:test'
import { createArchive, MIDNIGHT_MS } from './support/archive-parts.ts'
import { startTapeline } from './support/processes.ts'
import { record, tradeValue } from './support/records.ts'
import { openTestS3Store, S3_CREDENTIALS, startS3Server } from './support/s3.ts'

const server = await startS3Server()
after(() => ('skip' in server ? undefined : server[Symbol.asyncDispose]()))

function trade(id: number, afterMs: number) {
  return record(tradeValue({ t: id, T: MIDNIGHT_MS + afterMs, E: MIDNIGHT_MS + afterMs }))
}

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
