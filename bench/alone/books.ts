import { execFile } from 'node:child_process'
import { resolve } from 'node:path'
import { promisify } from 'node:util'
import { FetchedMessage } from '../../src/foundation/kafka/codec/record-batch.ts'
import { createArchive } from '../../test/support/archive-parts.ts'
import { recordedMarket } from './recorded-market.ts'

const TAPELINE = resolve(import.meta.dirname, '../../bin/tapeline')
/** Runs of a command; the median counts. The first one also fills the caches of the operating system. */
const TIMES = 5
const LIMIT_MS = 120_000

/**
 * Archives the recorded frames with depth again and again, a segment for each pass of five minutes, which is
 * the default. Then reads the last book from the segments, and from the published day.
 *
 * @param diffCount how many diffs at least
 */
export async function booksOfArchive(diffCount: number): Promise<Record<string, number>> {
  await using archive = await createArchive()
  let newestMs = 0
  for (const { values, endMs } of recordedMarket(diffCount)) {
    await archive.add(
      'depth',
      values.map((value) => new FetchedMessage(0, Buffer.from('BTCUSDT'), [], value)),
    )
    newestMs = endMs
  }
  const env = { ARCHIVE_URL: archive.folder }
  const segments = await bookCommand(newestMs, env, '--archive')
  await archive.publish()
  const published = await bookCommand(newestMs, env, '--archive')
  return { 'book of segments ms': segments, 'book of a published day ms': published }
}

/** Returns milliseconds from the start of the command to its end. */
export async function bookCommand(
  atMs: number,
  env: Readonly<Record<string, string>>,
  ...options: readonly string[]
): Promise<number> {
  const args = ['book', 'BTCUSDT', '--at', new Date(atMs).toISOString().slice(0, -1), '--json', ...options]
  const times: number[] = []
  for (let i = 0; i < TIMES; i++) {
    const startedMs = performance.now()
    const { stdout } = await promisify(execFile)(TAPELINE, args, {
      env: { ...process.env, ...env },
      timeout: LIMIT_MS,
    })
    times.push(performance.now() - startedMs)
    const { isNewest, bids } = JSON.parse(stdout)
    if (isNewest !== true || bids.levels.length !== 20) throw new Error(`No newest book: ${stdout}`)
  }
  return times.toSorted((one, other) => one - other)[Math.floor(TIMES / 2)] ?? Number.NaN
}
