import { BatchBuilder } from '../../src/consumer/batch-builder.ts'
import { databaseStore } from '../../src/consumer/database-store.ts'
import { Keyframes } from '../../src/consumer/keyframes.ts'
import { FetchedMessage } from '../../src/foundation/kafka/codec/record-batch.ts'
import { Decoder } from '../../src/foundation/kafka/message-decoder.ts'
import { systemClock } from '../../src/foundation/runtime/clock.ts'
import type { Database } from '../../src/foundation/store/database.ts'
import { openPostgres } from '../../src/foundation/store/postgres.ts'
import { createLogger } from '../../src/foundation/telemetry/log.ts'
import { NO_RECORDED_DEPTH } from '../../test/support/recorded-depth.ts'
import { bookCommand, booksOfArchive } from './books.ts'
import { recordedMarket } from './recorded-market.ts'
import { timed } from './timed.ts'

const TOPIC_ID = '00000000-0000-4000-8000-000000000003'
const PLACE = { topic: 'depth', topicId: TOPIC_ID, partition: 0 }
const START = { ...PLACE, nextOffset: 0, leaderEpoch: -1 }
/** What one fetch brings. */
const FETCHED = 200

/**
 * Stores the recorded frames with depth again and again, as the consumer does, from the bytes of their
 * messages to the commit. Then reads the last book with keyframes and without, and from an archive.
 *
 * @param diffCount how many diffs at least
 */
export async function storeDepth(diffCount: number, url: string): Promise<Record<string, number>> {
  if (NO_RECORDED_DEPTH !== false) throw new Error(`The stage depth needs frames: ${NO_RECORDED_DEPTH}`)
  const limits = { poolMin: 0, poolMax: 2, queryTimeoutMs: 30 * 60_000 }
  const database = openPostgres({ url, ...limits, applicationName: 'tapeline-bench' })
  const log = createLogger('bench', 'silent')
  try {
    const store = databaseStore(database, systemClock(), log)
    await store.establish(() => ({ positions: [START], toWrite: [START], losses: [], notices: [] }))
    const builder = new BatchBuilder({
      kindOf: new Map([['depth', 'depth']]),
      ...{ batchSize: 500, flushIntervalMs: 2000, batchMaxBytes: 8 << 20, maxSealed: 2, maxBytes: 32 << 20 },
    })
    builder.assign([START])
    let [offset, levels, seconds, newestMs] = [0, 0, 0, 0]
    for (const { values, endMs } of recordedMarket(diffCount)) {
      const ofPass = levelsOf(values)
      newestMs = endMs
      const { perSecond } = await timed(ofPass, async () => {
        for (let i = 0; i < values.length; i += FETCHED) {
          const messages = values
            .slice(i, i + FETCHED)
            .map((value, j) => new FetchedMessage(offset + j, Buffer.from('BTCUSDT'), [], value))
          const nextOffset = offset + messages.length
          const answer = { ...PLACE, error: null, startOffset: 0, endOffset: nextOffset, nextOffset }
          builder.accept({ ...answer, nextLeaderEpoch: 0, diverging: null, messages }, 0, 0)
          offset = nextOffset
          if (i + FETCHED >= values.length) builder.flush()
          for (let batch = builder.take(0); batch !== null; batch = builder.take(0)) {
            await store.write(batch)
            builder.stored(batch)
          }
        }
      })
      levels += ofPass
      seconds += ofPass / perSecond
    }
    const keyframes = new Keyframes(database, log)
    const command = () => bookCommand(newestMs, { DATABASE_URL: url })
    const without = { sql: await bookMs(database), command: await command() }
    const made = await timed(offset, () => keyframes.round())
    return {
      'level changes/s': levels / seconds,
      'diffs/s': offset / seconds,
      'diffs/s into keyframes': made.perSecond,
      keyframes: keyframes.made,
      'book_at without keyframes ms': without.sql,
      'book_at ms': await bookMs(database),
      'book of tables without keyframes ms': without.command,
      'book of tables ms': await command(),
      ...(await booksOfArchive(diffCount)),
    }
  } finally {
    await database.close()
  }
}

async function bookMs(database: Database): Promise<number> {
  const startedMs = performance.now()
  const { rowCount } = await database.query(
    `SELECT FROM book_at('BTCUSDT', (SELECT max(event_time) FROM depth_updates), 20)`,
  )
  if (rowCount !== 40) throw new Error(`The book has ${rowCount} levels`)
  return performance.now() - startedMs
}

function levelsOf(values: readonly Buffer[]): number {
  const decoder = new Decoder()
  let levels = 0
  for (const value of values) {
    const reason = decoder.decode('depth', new FetchedMessage(0, null, [], value))
    if (reason !== null) throw new Error(reason)
    levels += decoder.event.bidCount + decoder.event.askCount
  }
  return levels
}
