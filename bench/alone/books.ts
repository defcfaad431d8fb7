import { execFile } from 'node:child_process'
import { resolve } from 'node:path'
import { promisify } from 'node:util'
import { ArchiveKeyframes } from '../../src/archive/keyframes.ts'
import { keyframesOf } from '../../src/foundation/archive/archived-keyframes.ts'
import { FetchedMessage } from '../../src/foundation/kafka/codec/record-batch.ts'
import { systemClock } from '../../src/foundation/runtime/clock.ts'
import { createArchive } from '../../test/support/archive-parts.ts'
import { recordedMarket } from './recorded-market.ts'

const TAPELINE = resolve(import.meta.dirname, '../../bin/tapeline')
/** Runs of a command; the median counts. The first one also fills the caches of the operating system. */
const TIMES = 5
const LIMIT_MS = 120_000
const SYMBOL = 'BTCUSDT'

/**
 * Archives the recorded frames with depth again and again, a segment for each pass of five minutes, which is
 * the default. Then reads a late book from the segments, and from the published day: without keyframes, and with
 * them just before the last one, when most changes have come since a keyframe.
 *
 * @param diffCount how many diffs at least
 */
export async function booksOfArchive(diffCount: number): Promise<Record<string, number>> {
  await using archive = await createArchive()
  for (const { values } of recordedMarket(diffCount)) {
    await archive.add(
      'depth',
      values.map((value) => new FetchedMessage(0, Buffer.from(SYMBOL), [], value)),
    )
  }
  const env = { ARCHIVE_URL: archive.folder }
  const { store } = archive
  const startedMs = performance.now()
  await new ArchiveKeyframes(store, archive.duckDb, systemClock()).round(new AbortController().signal)
  const roundMs = performance.now() - startedMs
  const keyframes = await keyframesOf(store, SYMBOL)
  const last = keyframes.at(-1)
  if (last === undefined) throw new Error('No keyframe was made')
  const atMs = last.eventTimeUs / 1000 - 1
  const bytes = (await Promise.all(keyframes.map(({ key }) => store.read(key)))).map(
    (one) => one?.length ?? 0,
  )
  const segments = await bookCommand(atMs, env, '--archive')
  await archive.publish()
  const published = await bookCommand(atMs, env, '--archive')
  for (const { key } of keyframes) await store.remove(key)
  const publishedWithout = await bookCommand(atMs, env, '--archive')
  return {
    keyframes: keyframes.length,
    'largest keyframe bytes': Math.max(...bytes),
    'ms per keyframe': roundMs / keyframes.length,
    'book of segments ms': segments,
    'book of a published day ms': published,
    'book of a published day without keyframes ms': publishedWithout,
  }
}

/** Returns milliseconds from the start of the command to its end. */
export async function bookCommand(
  atMs: number,
  env: Readonly<Record<string, string>>,
  ...options: readonly string[]
): Promise<number> {
  const args = ['book', SYMBOL, '--at', new Date(atMs).toISOString().slice(0, -1), '--json', ...options]
  const times: number[] = []
  for (let i = 0; i < TIMES; i++) {
    const startedMs = performance.now()
    const { stdout } = await promisify(execFile)(TAPELINE, args, {
      env: { ...process.env, ...env },
      timeout: LIMIT_MS,
    })
    times.push(performance.now() - startedMs)
    const { bids } = JSON.parse(stdout)
    if (bids.levels.length !== 20) throw new Error(`No book: ${stdout}`)
  }
  return times.toSorted((one, other) => one - other)[Math.floor(TIMES / 2)] ?? Number.NaN
}
