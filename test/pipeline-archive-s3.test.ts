import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { startArchiveScene } from './support/archive-scene.ts'
import { S3_CREDENTIALS, type S3Fault, startS3Proxy, startS3Server } from './support/s3.ts'
import { startArchiveProcess } from './support/services.ts'
import { until } from './support/wait-for.ts'

/** A fifth of the requests fails, and each failure costs a retry. */
const LIMIT_MS = 120_000
const KILLS = process.env['TAPELINE_TEST_ALL'] === '1' ? 3 : 1

/** One in so many requests meets each fault. */
const RATES: ReadonlyArray<readonly [S3Fault, number]> = [
  ['fail before', 20],
  ['fail after', 20],
  ['busy', 20],
  ['cut', 20],
  ['silence', 400],
]

function faultOf(random: number): S3Fault | undefined {
  let share = 0
  return RATES.find(([, rate]) => {
    share += 1 / rate
    return random < share
  })?.[0]
}

test('on S3 with all faults and kills every row of the tables is archived once, digit for digit', {
  timeout: 400_000,
}, async (context) => {
  const server = await startS3Server()
  if ('skip' in server) return context.skip(server.skip)
  await using _server = server
  await using proxy = await startS3Proxy(server.url, () => faultOf(Math.random()))
  const cache = mkdtempSync(join(tmpdir(), 'tapeline-cache-'))
  context.after(() => rmSync(cache, { recursive: true }))
  await using scene = await startArchiveScene({
    ...S3_CREDENTIALS,
    ARCHIVE_URL: `s3://tapeline/${randomUUID()}`,
    ARCHIVE_S3_ENDPOINT: proxy.url,
    ARCHIVE_CACHE: cache,
  })
  for (let kill = 0; kill < KILLS; kill++) {
    await using archive = await startArchiveProcess(scene.env)
    await archive.until('segments', ({ segments }) => segments > 5 + kill, LIMIT_MS)
    archive.command.signal('SIGKILL')
    await archive.command.exit()
  }
  await using archive = await startArchiveProcess(scene.env)
  await archive.until('segments', ({ segments }) => segments > 5, LIMIT_MS)
  const random = proxy.decide
  for (const [fault, reason] of [
    ['busy', /Writing a segment to s3:.* failed: .*overloaded \(503 SlowDown/],
    ['clock skew', /Writing a segment to s3:.* failed: .*clock .*differs.*NTP/],
  ] as const) {
    proxy.decide = () => fault
    await archive.until(fault, (status) => !status.ready && reason.test(status.reason), LIMIT_MS)
    proxy.decide = () => undefined
    await archive.until('to be ready again', ({ ready }) => ready, LIMIT_MS)
  }
  proxy.decide = random
  await archive.until('more segments', ({ segments }) => segments > 20, LIMIT_MS)
  proxy.decide = () => undefined
  await scene.assertEqual(archive)
})

test('an archive without credentials or bucket waits with the reason and the fix, and can be stopped', {
  timeout: 300_000,
}, async (context) => {
  const server = await startS3Server()
  if ('skip' in server) return context.skip(server.skip)
  if (server.moto === null) return context.skip('another store is used')
  await using _server = server
  await using scene = await startArchiveScene({
    ...S3_CREDENTIALS,
    ARCHIVE_URL: 's3://later',
    ARCHIVE_S3_ENDPOINT: server.url,
  })
  await using archive = await startArchiveProcess(scene.env)
  await archive.until('the reason', ({ reason }) => /the bucket does not exist.*Create it/.test(reason))
  await using none = await startArchiveProcess({
    ...scene.env,
    AWS_ACCESS_KEY_ID: '',
    AWS_SECRET_ACCESS_KEY: '',
    AWS_EC2_METADATA_DISABLED: 'true',
  })
  await none.until('the reason', ({ reason }) => /no credentials.*AWS_ACCESS_KEY_ID/.test(reason))
  await none.stop()
  await using proxy = await startS3Proxy(server.url, () => 'silence')
  await using unanswered = await startArchiveProcess({ ...scene.env, ARCHIVE_S3_ENDPOINT: proxy.url })
  await until('a request', () => proxy.requests.length > 0)
  await unanswered.stop()
  await server.moto.createBucket('later')
  await archive.until('segments', ({ segments }) => segments > 2)
  await scene.assertEqual(archive)
})
