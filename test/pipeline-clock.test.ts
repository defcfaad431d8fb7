import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sleep } from '../src/foundation/runtime/backoff.ts'
import { column } from './support/columns.ts'
import { createIngestionParts } from './support/ingestion-parts.ts'
import { assertNoneMissing, idsByStream, readTopic } from './support/messages.ts'
import { createPipelineParts } from './support/pipeline-parts.ts'
import { startTapeline } from './support/processes.ts'
import { type IngestionProcess, startConsumerProcess } from './support/services.ts'
import { type ProcessWallClock, processWallClock } from './support/wall-clock.ts'

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS

const AHEAD = /the clock of this machine is more than an hour ahead/

/** Longest time from sending an event to its receipt; more than a paused process may hold undetected. */
const LATEST_MS = 2700

/** Waits until every stream has delivered again: backfill alone can send many messages. */
async function flows(ingestion: IngestionProcess, messages = 300): Promise<void> {
  const beganMs = performance.now()
  const { acknowledged } = (await ingestion.status()).counters
  await ingestion.until(
    `${messages} messages, an event of every stream, and every gap to be filled`,
    ({ counters, openGaps, ready, streams }) => {
      const sinceMs = performance.now() - beganMs
      const isNew = Object.values(streams).every(
        ({ lastSeenAgeMs }) => lastSeenAgeMs !== null && lastSeenAgeMs < sinceMs,
      )
      return ready && isNew && counters.acknowledged > acknowledged + messages && openGaps.length === 0
    },
    90_000,
  )
}

interface Scenario {
  readonly title: string
  readonly aheadAtStartMs?: number
  readonly play: (ingestion: IngestionProcess, clock: ProcessWallClock) => Promise<void>
  /** The causes of the windows of each symbol, in the order of their detection. */
  readonly windows: readonly string[]
}

/** Runs every case, not only those of different kinds; chaos runs have longer freezes. */
const ALL = process.env['TAPELINE_TEST_CLOCKS'] === 'all'

function startedAhead(text: string, ms: number): Scenario {
  return {
    title: `started ${text} ahead of Kafka and the exchange, then corrected`,
    aheadAtStartMs: ms,
    play: async (ingestion, clock) => {
      const { ready } = await ingestion.until('the reason', ({ reason }) => AHEAD.test(reason))
      assert.equal(ready, false)
      await ingestion.command.waitForLine(AHEAD)
      clock.set(0)
    },
    windows: [],
  }
}

function aheadForAWhile(text: string, ms: number): Scenario {
  return {
    title: `${text} ahead for a while`,
    play: async (ingestion, clock) => {
      await flows(ingestion)
      clock.set(ms)
      await ingestion.command.waitForLine(AHEAD)
      const { received } = (await ingestion.status()).counters
      await ingestion.until('frames', ({ counters }) => counters.received > received + 1500)
      clock.set(0)
    },
    windows: ['clock', 'clock'],
  }
}

function stopped(seconds: number): Scenario {
  return {
    title: `stopped for ${seconds} s`,
    play: async (ingestion) => {
      await flows(ingestion)
      ingestion.command.signal('SIGSTOP')
      await sleep(seconds * 1000)
      ingestion.command.signal('SIGCONT')
    },
    windows: ['reconnect'],
  }
}

const SCENARIOS: readonly Scenario[] = [
  startedAhead('8 h', 8 * HOUR_MS),
  {
    title: 'started 50 minutes late, corrected after 5 s',
    aheadAtStartMs: -50 * MINUTE_MS,
    play: async (ingestion, clock) => {
      await flows(ingestion)
      await sleep(5000)
      clock.set(0)
    },
    windows: ['clock'],
  },
  aheadForAWhile('2 h', 2 * HOUR_MS),
  {
    title: 'set back by 50 minutes',
    play: async (ingestion, clock) => {
      await flows(ingestion)
      clock.set(-50 * MINUTE_MS)
    },
    windows: ['clock'],
  },
  stopped(3),
  {
    title: 'suspended for 5 s: the wall clock is ahead by an hour when the process continues',
    play: async (ingestion, clock) => {
      await flows(ingestion)
      ingestion.command.signal('SIGSTOP')
      await sleep(5000)
      clock.set(0.9 * HOUR_MS)
      ingestion.command.signal('SIGCONT')
    },
    windows: ['clock'],
  },
  ...(ALL
    ? [startedAhead('2 h', 2 * HOUR_MS), aheadForAWhile('8 h', 8 * HOUR_MS), stopped(90), stopped(600)]
    : []),
]

for (const { title, aheadAtStartMs = 0, play, windows } of SCENARIOS) {
  test(`P3 a process whose clock was ${title}: no receipt time is wrong, and the ledger has the missing data`, async (context) => {
    await using parts = await createIngestionParts({ messagesPerSecond: 300 })
    using clock = processWallClock(aheadAtStartMs)
    await using ingestion = await parts.ingest(clock.env)
    await ingestion.until('an answer', () => true)
    await play(ingestion, clock)
    await flows(ingestion)
    const endedMs = Date.now()
    await ingestion.stop()

    const { KAFKA_TRADES_TOPIC: trades, KAFKA_BOOK_TICKER_TOPIC: quotes } = parts.topics.env
    const events = await stampedIn(trades)
    wrongTrades(events, clock)
    for (const [name, ids] of await idsByStream(trades))
      assert.equal(assertNoneMissing(ids, name).length, ids.length, `${name}: each id once`)
    const stored = await stampedIn(quotes)
    for (const some of Map.groupBy(stored, ({ s }) => s).values()) wrongQuotes(some, clock, endedMs)
    const rows = await parts.ledger()
    for (const symbol of new Set(stored.map(({ s }) => s))) {
      const found = rows.filter((row) => row.symbol === symbol && row.event_type === 'bookTicker')
      assert.deepEqual(column(found, 'cause'), windows, `${symbol}: ${JSON.stringify(found)}`)
    }
    context.diagnostic(`${events.length} trades and ${stored.length} quotes, none with a wrong receipt time`)
  })
}

/** Times in microseconds. */
interface Stamped {
  readonly s: string
  readonly E?: number
  readonly ingestion_timestamp_us: number
}

async function stampedIn(topic: string): Promise<Stamped[]> {
  return (await readTopic(topic)).map(({ value }) => JSON.parse(String(value)))
}

/** The exchange runs in this process, whose clock is right. */
function wrongTrades(events: readonly Stamped[], clock: ProcessWallClock): void {
  const wrong = events.filter(({ E, ingestion_timestamp_us: us }) => {
    const shownMs = clock.whenShown(us / 1000)
    if (E === undefined) return shownMs.length === 0
    const sentMs = E / 1000
    return !shownMs.some((atMs) => sentMs - 5 <= atMs && atMs <= sentMs + LATEST_MS)
  })
  assert.deepEqual(
    wrong.slice(0, 3),
    [],
    `${wrong.length} of ${events.length} trades have a wrong receipt time`,
  )
}

/** Quotes have no exchange time, but their receipt times must increase up to the end. */
function wrongQuotes(quotes: readonly Stamped[], clock: ProcessWallClock, endedMs: number): void {
  let lastMs = 0
  for (const quote of quotes) {
    const atMs = clock.whenShown(quote.ingestion_timestamp_us / 1000).find((ms) => ms > lastMs - 1)
    assert.ok(atMs !== undefined, `stamped wrongly: ${JSON.stringify(quote)}`)
    lastMs = atMs
  }
  assert.ok(lastMs > endedMs - 10_000, 'the last quote has its receipt time')
}

test('verify passes, and every quote is stored, after a clock was set back', async () => {
  await using parts = await createPipelineParts({ messagesPerSecond: 300 })
  using clock = processWallClock()
  await using consumer = await startConsumerProcess(parts.env)
  await consumer.ready()
  await using ingestion = await parts.ingest(clock.env)
  await ingestion.ready()
  await flows(ingestion)
  clock.set(-5000)
  await flows(ingestion, 1500)
  await ingestion.stop()
  const quotes = (await readTopic(parts.topics.env.KAFKA_BOOK_TICKER_TOPIC)).length
  await parts.untilRows('SELECT count(*) FROM book_ticker', quotes)
  await consumer.stop()
  await using verify = startTapeline(['verify', '--json'], { env: parts.env })
  await verify.assertExit(0)
  assert.match(verify.output(), /"cause": ?"clock"/)
})
