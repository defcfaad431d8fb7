import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { pino } from 'pino'
import { StoreProblem } from '../src/archive/store-problem.ts'
import { openDuckDb } from '../src/foundation/archive/duckdb.ts'
import { openFolderStore } from '../src/foundation/archive/folder-store.ts'
import { withinLimit } from '../src/foundation/runtime/backoff.ts'
import { isTapelineError } from '../src/foundation/runtime/errors.ts'

/** The error of the work, with the fix. */
async function failureOf(work: Promise<unknown>): Promise<string> {
  // Node's own `mkdir` never returns in some folders.
  const error = await withinLimit(work, 10_000, 'no answer').then(
    () => assert.fail('nothing failed'),
    (failure: unknown) => failure,
  )
  assert.ok(isTapelineError(error), String(error))
  return `${error.code} ${error.message} ${error.fix}`
}

function temporary(context: { after(work: () => void): void }): string {
  const folder = mkdtempSync(join(tmpdir(), 'tapeline-folder-'))
  context.after(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

test('a folder that can never be written is a final error at the start, with the fix', async (context) => {
  const folder = temporary(context)
  writeFileSync(join(folder, 'file'), '')
  const prepared = (...path: string[]) => failureOf(openFolderStore(join(...path)).prepare())
  assert.match(await prepared('/proc/x/archive'), /^ARCHIVE .*\/proc\/x\/archive .*ENOENT.*Set ARCHIVE_URL/)
  assert.match(await prepared(folder, 'file'), /^ARCHIVE .*ENOTDIR.*Set ARCHIVE_URL/)
  assert.match(await prepared(folder, 'file', 'archive'), /^ARCHIVE .*ENOTDIR.*part of this path is a file/)
  const options = { memoryBytes: 64 << 20, tempFolder: '/proc/x', threads: 1 }
  assert.match(await failureOf(openDuckDb(options)), /^ENVIRONMENT .*\/proc\/x.*Set ARCHIVE_TEMP/)
})

const CAN_MOUNT = process.getuid?.() === 0 && spawnSync('unshare', ['--mount', 'true']).status === 0

test('a read-only disk is named as such, also if the folder is not there or was prepared before', {
  skip: CAN_MOUNT ? false : 'only root can mount a disk',
}, async (context) => {
  const disk = temporary(context)
  const mount = (...args: string[]) => assert.equal(spawnSync('mount', args).status, 0, args.join(' '))
  mount('-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', disk)
  using _disk = { [Symbol.dispose]: () => void spawnSync('umount', [disk]) }
  const before = openFolderStore(join(disk, 'before'))
  await before.prepare()
  mount('-o', 'remount,ro', disk)
  assert.match(await failureOf(openFolderStore(join(disk, 'a/b')).prepare()), /^ARCHIVE .*EROFS.*for writing/)
  assert.match(await failureOf(before.prepare()), /^ARCHIVE .*EROFS/)
  assert.match(await failureOf(before.create('key', Buffer.from('x'))), /^STORE .*EROFS.*for writing/)
  mount('-o', 'remount,rw', disk)
  const full = before.create('key', Buffer.alloc(128 << 10))
  assert.match(await failureOf(full), /^STORE .*ENOSPC.*Free space/)
})

test('folders above an archive are created', async (context) => {
  const folder = temporary(context)
  mkdirSync(join(folder, 'a'))
  const store = openFolderStore(join(folder, 'a/b/c'))
  await store.prepare()
  await store.prepare()
  assert.equal(await store.create('d/e/key', Buffer.from('x')), true)
})

test('a failure that lasts is logged once a minute, also if its texts name new files', () => {
  const logged: string[] = []
  const log = pino({ level: 'info' }, { write: (line: string) => logged.push(line) })
  const problem = new StoreProblem(log)
  const fail = (atMs: number, name: string) =>
    problem.failed('Writing failed', new Error(`${name}: full`), atMs)
  fail(0, '0b9c5cf6-c6f8-4a8c-bd29-000000000001')
  fail(4000, '0b9c5cf6-c6f8-4a8c-bd29-000000000002')
  assert.equal(logged.length, 1)
  fail(5000, 'other')
  fail(61_000, '0b9c5cf6-c6f8-4a8c-bd29-000000000003')
  assert.equal(logged.length, 3)
  assert.match(problem.reason ?? '', /Writing failed: .*3: full/)
  problem.worked()
  problem.worked()
  assert.deepEqual([logged.length, problem.reason], [4, null])
})
