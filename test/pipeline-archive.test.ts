import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { startArchiveScene } from './support/archive-scene.ts'
import { createPipelineParts } from './support/pipeline-parts.ts'
import { startArchiveProcess } from './support/services.ts'
import { until } from './support/wait-for.ts'

/** Each kill costs a session of the group, and a start. */
const KILLS = process.env['TAPELINE_TEST_ALL'] === '1' ? 4 : 1

test('an archive that is killed again and again has every row of the tables once, digit for digit', async () => {
  await using scene = await startArchiveScene()
  for (let kill = 0; kill < KILLS; kill++) {
    await using archive = await startArchiveProcess(scene.env)
    await archive.until('segments', ({ segments }) => segments > 5 + kill)
    archive.command.signal('SIGKILL')
    await archive.command.exit()
  }
  await using archive = await startArchiveProcess(scene.env)
  await scene.assertEqual(archive)
})

test('an owner that stands still and wakes after its successor has committed adds no row twice', async () => {
  await using scene = await startArchiveScene()
  await using first = await startArchiveProcess(scene.env)
  await first.until('segments', ({ segments }) => segments > 5)
  first.command.signal('SIGSTOP')
  await using second = await startArchiveProcess(scene.env)
  await second.until('segments of the successor', ({ segments }) => segments > 5)
  first.command.signal('SIGCONT')
  await until('the group to be divided again', async () => {
    const [one, other] = await Promise.all([first.status(), second.status()])
    return one.ready && other.ready && one.partitions.length > 0 && other.partitions.length > 0
  })
  await first.stop()
  assert.match(first.command.output(), /Another process has archived these messages/)
  await scene.assertEqual(second)
})

const CAN_MOUNT = process.getuid?.() === 0 && spawnSync('unshare', ['--mount', 'true']).status === 0

test('a full disk loses nothing: the archive waits, and continues when there is room', {
  skip: CAN_MOUNT ? false : 'only root can mount a small disk',
}, async () => {
  await using scene = await startArchiveScene()
  const disk = scene.env['ARCHIVE_URL'] ?? ''
  await mkdir(disk)
  const mount = (...args: string[]) => assert.equal(spawnSync('mount', args).status, 0, args.join(' '))
  mount('-t', 'tmpfs', '-o', 'size=600k', 'tmpfs', disk)
  using _disk = { [Symbol.dispose]: () => void spawnSync('umount', [disk]) }
  await using archive = await startArchiveProcess(scene.env)
  await until('the disk to be full', async () => {
    const { ready, reason } = await archive.status()
    return !ready && /Writing a segment to .* failed: .*(No space left|ENOSPC)/.test(reason)
  })
  mount('-o', 'remount,size=64m', disk)
  await until('the archive to be ready', async () => (await archive.status()).ready)
  await scene.assertEqual(archive)
})

test('refuses a folder with other files, and an archive of another exchange', async () => {
  await using parts = await createPipelineParts({ messagesPerSecond: 100 })
  const folder = await mkdtemp(join(tmpdir(), 'tapeline-archive-'))
  await using ingestion = await parts.ingest()
  await ingestion.ready()
  const refused = async (file: string, content: string) => {
    await rm(folder, { recursive: true })
    await mkdir(folder)
    await writeFile(join(folder, file), content)
    await using archive = await startArchiveProcess({ ...parts.env, ARCHIVE_URL: folder })
    await archive.command.assertExit(1, 60_000)
    return archive.command.output()
  }
  assert.match(await refused('photo.jpg', ''), /has files and is not an archive of Tapeline/)
  const other = { format: 1, source: 'binance', timeUnit: 'microsecond' }
  assert.match(await refused('_meta.json', JSON.stringify(other)), /hold data of \\?"binance/)
  await rm(folder, { recursive: true })
})
