import assert from 'node:assert/strict'
import { createHash, randomUUID } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, type TestContext, test } from 'node:test'
import { markForSweep, sweep } from '../src/archive/sweep.ts'
import { markArchive } from '../src/foundation/archive/archive-mark.ts'
import { CommitChain, chainsOf } from '../src/foundation/archive/commit-chain.ts'
import type { S3Options, S3Store } from '../src/foundation/archive/s3-store.ts'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import { isTapelineError } from '../src/foundation/runtime/errors.ts'
import { freePort } from '../src/sandbox/processes/free-ports.ts'
import { createArchive, MIDNIGHT_MS } from './support/archive-parts.ts'
import { record, tradeValue } from './support/records.ts'
import {
  openTestS3Store,
  type S3Fault,
  type S3Request,
  type S3Server,
  startS3Proxy,
  startS3Server,
} from './support/s3.ts'
import { failureOf } from './support/wait-for.ts'

const server = await startS3Server()
const skip = 'skip' in server ? server.skip : false
after(() => ('skip' in server ? undefined : server[Symbol.asyncDispose]()))

/** For tests of the server that the tests start. */
const skipOther =
  skip !== false || !('moto' in server) || server.moto !== null ? skip : 'another store is used'

function running(): S3Server {
  return 'skip' in server ? assert.fail(server.skip) : server
}

/** A store whose requests pass a proxy, which does what `decide` says. */
async function scene(
  context: TestContext,
  decide: (one: S3Request) => S3Fault | undefined = () => undefined,
  options: Partial<S3Options> = {},
) {
  const proxy = await startS3Proxy(running().url, decide)
  const opened = openTestS3Store(proxy.url, { prefix: randomUUID(), ...options })
  context.after(async () => {
    await opened[Symbol.asyncDispose]()
    await proxy[Symbol.asyncDispose]()
  })
  await opened.store.prepare()
  return { ...opened, proxy }
}

/** These faults for the first requests of a method, then none. */
function firstOf(method: string, ...faults: S3Fault[]) {
  return (one: S3Request) => (one.method === method ? faults.shift() : undefined)
}

const bytes = (text: string) => Buffer.from(text)

/** Puts a file under a key. @returns what an archive's record would say of it */
async function putFile(store: S3Store, key: string, content: Buffer) {
  const expected = { bytes: content.length, sha256: createHash('sha256').update(content).digest('hex') }
  const others = readdirSync(store.stagingFolder)
  assert.deepEqual(await store.putFile(key, (path) => writeFile(path, content)), expected)
  assert.deepEqual(readdirSync(store.stagingFolder), others, 'the staged file is removed')
  return expected
}

/** How often an object of these tests was read; the probe does not count. */
function downloads(requests: readonly S3Request[]): number {
  return requests.filter(
    ({ method, path, isList }) => method === 'GET' && !isList && !path.endsWith('_probe.json'),
  ).length
}

async function assertStoreError(work: Promise<unknown>, message: RegExp, fix: RegExp): Promise<void> {
  const error = await failureOf(work)
  assert.ok(isTapelineError(error, 'STORE'), String(error))
  assert.match(error.message, message)
  assert.match(error.fix, fix)
}

test('a creation is ours whether the answer fails before or after it was stored', {
  skip,
}, async (context) => {
  const { store, proxy } = await scene(context, undefined, { silenceLimitMs: 1000 })
  const faults: S3Fault[][] = [
    ['fail before'],
    ['fail after'],
    ['cut'],
    ['silence'],
    ['busy', 'fail after'],
    ['fail after', 'fail after', 'fail after'],
  ]
  for (const [i, list] of faults.entries()) {
    proxy.decide = firstOf('PUT', ...list)
    assert.equal(await store.create(`records/${i}`, bytes('ours')), true, list.join())
    assert.equal(await store.create(`records/${i}`, bytes('ours')), true, 'a repeated one')
    proxy.decide = firstOf('PUT', ...list)
    assert.equal(await store.create(`records/${i}`, bytes('theirs')), false, list.join())
    assert.equal(String(await store.read(`records/${i}`)), 'ours')
  }
})

test('a creation that fails leaves nothing, and a later attempt succeeds', { skip }, async (context) => {
  const { store, proxy } = await scene(context)
  proxy.decide = () => 'fail before'
  await assertStoreError(
    store.create('a', bytes('1')),
    /PUT a failed: .*internal error \(500/,
    /log of the store/,
  )
  proxy.decide = () => undefined
  assert.equal(await store.read('a'), null)
  assert.equal(await store.create('a', bytes('1')), true)
})

test('a file arrives whole after errors, silence and a cut connection', { skip }, async (context) => {
  const { store, proxy } = await scene(context, undefined, { silenceLimitMs: 1000 })
  const content = Buffer.alloc(3 << 20, 'abcdefg')
  for (const fault of ['fail before', 'fail after', 'busy', 'cut', 'silence'] as const) {
    proxy.decide = firstOf('PUT', fault)
    const expected = await putFile(store, `files/${fault}`, content)
    assert.ok(readFileSync(await store.localCopy(`files/${fault}`, expected)).equals(content), fault)
  }
  proxy.decide = () => 'busy'
  const put = store.putFile('files/none', (path) => writeFile(path, content))
  await assertStoreError(put, /overloaded \(503 SlowDown/, /limits/)
})

test('a cut answer is no record, and no file', { skip }, async (context) => {
  const { store, proxy, cacheFolder } = await scene(context)
  const content = Buffer.alloc(1 << 20, 'abcdefg')
  const expected = await putFile(store, 'file', content)
  proxy.decide = (one) => (one.method === 'GET' ? 'cut' : undefined)
  await assertStoreError(store.read('file'), /GET file failed/, /./)
  await assertStoreError(store.localCopy('file', expected), /GET file failed/, /./)
  assert.deepEqual(filesIn(cacheFolder), [])
  assert.deepEqual(readdirSync(store.stagingFolder), [])
  proxy.decide = () => undefined
  assert.ok(readFileSync(await store.localCopy('file', expected)).equals(content))
})

test('a store that ignores If-None-Match is refused', { skip }, async (context) => {
  const { store, proxy } = await scene(context)
  proxy.decide = () => 'unconditional'
  const error = await failureOf(store.prepare())
  assert.ok(isTapelineError(error, 'ARCHIVE'))
  assert.match(error.message, /ignores If-None-Match/)
  proxy.decide = () => undefined
  await store.prepare()
  assert.equal(await store.isEmpty(), true, 'the probe does not count')
})

test('errors name the cause and the fix', { skip }, async (context) => {
  const { store, proxy } = await scene(context, undefined, { silenceLimitMs: 1000 })
  proxy.decide = () => 'clock skew'
  await assertStoreError(store.read('a'), /clock differs.*403 RequestTimeTooSkewed|clock differs/, /NTP/)
  proxy.decide = () => 'silence'
  await assertStoreError(store.list('a'), /does not answer .*inactivity/, /ARCHIVE_S3_ENDPOINT/)
  proxy.decide = () => undefined
  const other = openTestS3Store(proxy.url, { bucket: 'no-such-bucket' })
  context.after(() => other[Symbol.asyncDispose]())
  await assertStoreError(other.store.prepare(), /the bucket does not exist/, /Create it/)
  await assertStoreError(other.store.read('a'), /the bucket does not exist/, /Create it/)
  const nowhere = openTestS3Store(`http://127.0.0.1:${await freePort()}`)
  context.after(() => nowhere[Symbol.asyncDispose]())
  await assertStoreError(nowhere.store.prepare(), /does not answer .*ECONNREFUSED/, /that the store runs/)
})

test('a sweep of many days reads each list once', { skip }, async (context) => {
  const { store, proxy } = await scene(context)
  await using archive = await createArchive('simulated', store)
  const trade = (id: number, day: number) =>
    record(tradeValue({ t: id, T: MIDNIGHT_MS + day * 86_400_000, E: MIDNIGHT_MS + day * 86_400_000 }))
  await archive.add('trades', [trade(1, 0), trade(2, 1), trade(3, 2)])
  await archive.publish()
  await archive.add('trades', [trade(4, 1)])
  await archive.publish()
  const clean = new Map<string, string>()
  const marked = async () => {
    proxy.requests.length = 0
    const { days } = await markForSweep(store, clean)
    const reads = proxy.requests.filter(({ path, isList }) => !isList && path.includes('/_days/')).length
    return { dates: days.map(({ date }) => date), reads }
  }
  assert.deepEqual(await marked(), { dates: ['2024-08-10'], reads: 3 })
  assert.deepEqual(await marked(), { dates: ['2024-08-10'], reads: 1 })
  await sweep(store, await markForSweep(store, clean), systemClock())
  assert.deepEqual(await marked(), { dates: [], reads: 1 })
  assert.deepEqual(await marked(), { dates: [], reads: 0 })
})

test('parallel requests for one file share its download', { skip }, async (context) => {
  const { store, proxy, cacheFolder } = await scene(context)
  const expected = await putFile(store, 'file', Buffer.alloc(1 << 20))
  const paths = await Promise.all(Array.from({ length: 20 }, () => store.localCopy('file', expected)))
  assert.equal(downloads(proxy.requests), 1)
  assert.equal(new Set(paths).size, 20, 'each has its own path')
  await store.release(paths)
  assert.ok(paths.every((path) => !existsSync(path)))
  const other = openTestS3Store(proxy.url, {
    prefix: new URL(store.name.split(' ')[0] ?? '').pathname.slice(1),
    cacheFolder,
  })
  context.after(() => other.store.close())
  await other.store.localCopy('file', expected)
  assert.equal(downloads(proxy.requests), 1, 'another process finds it')
})

test('the cache stays in its bounds, and removes what was used longest ago and is not in use', {
  skip,
}, async (context) => {
  const size = 1 << 20
  const { store, cacheFolder, proxy } = await scene(context, undefined, { cacheBytes: 4.5 * size })
  const files: Array<{ key: string; bytes: number; sha256: string }> = []
  for (let i = 0; i < 8; i++)
    files.push({ key: `f${i}`, ...(await putFile(store, `f${i}`, Buffer.alloc(size, String(i)))) })
  const copy = (i: number) => store.localCopy(`f${i}`, files[i])
  const gets = () => downloads(proxy.requests)
  const held = await copy(0)
  for (const i of [1, 2, 3]) await store.release([await copy(i)])
  await store.release([await copy(1)])
  assert.equal(gets(), 4)
  await store.release([await copy(4)])
  assert.ok(filesIn(cacheFolder).reduce((sum, bytes) => sum + bytes, 0) <= 4.5 * size)
  assert.ok(readFileSync(held).equals(Buffer.alloc(size, '0')), 'it is in use')
  await store.release([await copy(1)])
  assert.equal(gets(), 5, 'used recently')
  await store.release([await copy(2)])
  assert.equal(gets(), 6, 'was removed')
  const all = [await copy(5), await copy(6), await copy(7)]
  await assertStoreError(copy(3), /is full: files in use and the next one have 5 MiB/, /ARCHIVE_CACHE_MB/)
  await store.release([...all, held])
  await copy(3)
})

test('a file with other content is refused, and is not kept', { skip }, async (context) => {
  const { store, cacheFolder } = await scene(context)
  const expected = await putFile(store, 'file', bytes('content'))
  const refused = async (wrong: Partial<typeof expected>, message: RegExp) => {
    const error = await failureOf(store.localCopy('file', { ...expected, ...wrong }))
    assert.ok(isTapelineError(error, 'ARCHIVE'))
    assert.match(error.message, message)
  }
  await refused({ bytes: 8 }, /has 7 bytes, not 8/)
  await refused({ sha256: 'x' }, /its SHA-256 is .*, not x/)
  assert.deepEqual(filesIn(cacheFolder), [])
  assert.match(String(await failureOf(store.localCopy('missing', expected))), /missing is missing in s3:/)
})

test('a copy that was damaged in the cache is downloaded again for a day that is published', {
  skip,
}, async (context) => {
  const { store, cacheFolder } = await scene(context)
  await using archive = await createArchive('simulated', store)
  await archive.add('trades', [record(tradeValue({ t: 1, T: MIDNIGHT_MS, E: MIDNIGHT_MS }))])
  const [chain] = await chainsOf(store)
  const [committed] = await new CommitChain(store, chain ?? assert.fail('no chain')).records()
  const file = committed?.files[0] ?? assert.fail('no file')
  await store.release([await store.localCopy(file.key, file)])
  const [name = ''] = readdirSync(join(cacheFolder, 'files'))
  writeFileSync(join(cacheFolder, 'files', name), Buffer.alloc(file.bytes))
  assert.deepEqual(
    (await archive.publish()).map(({ rows }) => rows),
    [1],
  )
})

test('an object that is missing is known to be, also if the store refuses to say so', {
  skip,
}, async (context) => {
  const { store, proxy } = await scene(context)
  proxy.decide = ({ method, isList }) => (method === 'GET' && !isList ? 'hide missing' : undefined)
  await markArchive(store, { source: 'binance', timeUnit: 'microsecond' })
  const expected = await putFile(store, 'folder/file', bytes('content'))
  await putFile(store, 'folder/file.other', bytes('content'))
  assert.equal((await store.read('folder/file'))?.toString(), 'content')
  for (const missing of ['folder/fil', 'folder/file.o', 'none']) {
    assert.equal(await store.read(missing), null)
    assert.match(String(await failureOf(store.localCopy(missing, expected))), /is missing in s3:/)
  }
})

test('a cache that cannot be written is an error with the fix', { skip }, async (context) => {
  const { store, proxy, cacheFolder } = await scene(context)
  await putFile(store, 'file', bytes('content'))
  const occupied = join(cacheFolder, 'occupied')
  writeFileSync(occupied, '')
  const other = openTestS3Store(proxy.url, { cacheFolder: occupied })
  await assertStoreError(other.store.prepare(), /cache .* cannot be used: ENOTDIR/, /ARCHIVE_CACHE/)
  await assertStoreError(other.store.localCopy('file'), /cache .* cannot be used: ENOTDIR/, /ARCHIVE_CACHE/)
})

test('the rights in docs/archive.md suffice; others are refused with the fix', {
  skip: skipOther,
}, async (context) => {
  const page = readFileSync(join(import.meta.dirname, '..', 'docs', 'archive.md'), 'utf8')
  const policy: unknown = JSON.parse(/^```json\n(\{\n {2}"Version"[\s\S]*?)^```/m.exec(page)?.[1] ?? '')
  const guarded = await startS3Server()
  if ('skip' in guarded || guarded.moto === null) return context.skip()
  await using _guarded = guarded
  await guarded.moto.createBucket('archive')
  const user = await guarded.moto.user(Object(policy))
  const inherited = { ...process.env }
  context.after(() => Object.assign(process.env, inherited))
  const openAs = (credentials: Readonly<Record<string, string | undefined>>) => {
    Object.assign(process.env, credentials)
    const opened = openTestS3Store(guarded.url, { bucket: 'archive', prefix: 'tapeline' })
    context.after(() => opened[Symbol.asyncDispose]())
    return opened.store
  }
  const store = openAs(user)
  await store.prepare()
  assert.equal(await store.isEmpty(), true)
  const expected = await putFile(store, 'days/one', bytes('content'))
  assert.deepEqual(await store.list('days'), ['days/one'])
  assert.deepEqual(await store.folders('days'), [])
  await store.localCopy('days/one', expected)
  await store.remove('days/one')
  const wrongSecret = openAs({ ...user, AWS_SECRET_ACCESS_KEY: 'wrong' })
  await assertStoreError(wrongSecret.prepare(), /credentials are refused \(403/, /AWS_SECRET_ACCESS_KEY/)
  const unknown = openAs({ ...user, AWS_ACCESS_KEY_ID: 'unknown' })
  await assertStoreError(unknown.list('days'), /credentials are refused \(403/, /AWS_ACCESS_KEY_ID/)
})

/** The sizes of the complete files of a cache. */
function filesIn(cacheFolder: string): number[] {
  const folder = join(cacheFolder, 'files')
  return readdirSync(folder).map((name) => statSync(join(folder, name)).size)
}

// The last one: its records make every later LIST of the bucket slow.
test('a year of records costs a start at most ten LIST calls per partition', {
  skip: skipOther,
  timeout: 240_000,
}, async (context) => {
  const { store, proxy } = await scene(context, undefined, { silenceLimitMs: 60_000 })
  const partition = { topic: 'trades', topicId: 'a-topic-id', partition: 0 }
  const chain = new CommitChain(store, partition)
  await chain.begin({ firstOffset: 0, at: 0 })
  const record = { format: 1, segment: 'x', leaderEpoch: 7, lost: 0, committedAt: 0, files: [] }
  const text = JSON.stringify(record).replace('}', ',"firstOffset":FIRST,"nextOffset":NEXT}')
  const prefix = new URL(`${store.name.split(' at ')[0]}`).pathname.slice(1)
  const count = 365 * 288
  // Those of finished days are folded. A process may have been killed before it removed older folds.
  await running().moto?.put(`${prefix}/_folds/trades/a-topic-id/0/000001-`, 20, '{"format":1}')
  await chain.foldTo({ incarnation: 1, nextOffset: 364 * 288, leaderEpoch: 7 })
  assert.equal((await store.list('_folds')).length, 1)
  await running().moto?.put(`${prefix}/_commits/trades/a-topic-id/0/000001/`, count, text)
  proxy.requests.length = 0
  assert.deepEqual(await chain.head(), { incarnation: 1, nextOffset: count, leaderEpoch: 7 })
  assert.deepEqual(await chainsOf(store), [partition])
  assert.equal((await chain.records(await chain.foldedTo())).length, 288)
  const lists = proxy.requests.filter(({ isList }) => isList)
  assert.ok(lists.length <= 10, `${lists.length} calls`)
  await chain.foldTo({ incarnation: 1, nextOffset: count, leaderEpoch: 7 })
  assert.deepEqual(await chain.head(), { incarnation: 1, nextOffset: count, leaderEpoch: 7 }, 'all is folded')
})
