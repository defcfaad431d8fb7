import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { isFields } from '../src/foundation/market/payload.ts'
import { parseJson } from '../src/foundation/runtime/outside-text.ts'
import type { IngestionConfig } from '../src/ingestion/config.ts'
import { startIngestionHere } from './support/ingestion-here.ts'
import { createIngestionParts, type IngestionParts } from './support/ingestion-parts.ts'
import { readTopic } from './support/messages.ts'
import { until } from './support/wait-for.ts'

let parts: IngestionParts

const SYMBOLS = ['BTCUSDT', 'ETHUSDT']

beforeEach(async () => {
  parts = await createIngestionParts({ messagesPerSecond: 200, historyMinutes: 2 })
})

afterEach(() => parts[Symbol.asyncDispose]())

const ingest = (more: Readonly<Record<string, string>> = {}, config: Partial<IngestionConfig> = {}) =>
  startIngestionHere(
    {
      ...parts.env,
      SYMBOLS: SYMBOLS.join(),
      STREAM_TYPES: 'trade,bookTicker,depth',
      REST_WEIGHT_PER_MINUTE: '6000',
      ...more,
    },
    config,
  )

interface Stored {
  readonly symbol: string
  readonly from: number
  readonly to: number
  readonly isSnapshot: boolean
}

/** The messages of the topic, in its order. */
async function stored(): Promise<Stored[]> {
  const messages = await readTopic(parts.topics.env.KAFKA_DEPTH_TOPIC)
  return messages.map(({ value }) => {
    const data = parseJson(String(value))
    if (!isFields(data)) return assert.fail(String(value))
    const isSnapshot = data['e'] === 'depthSnapshot'
    const to = Number(isSnapshot ? data['lastUpdateId'] : data['u'])
    return { symbol: String(data['s']), from: isSnapshot ? to : Number(data['U']), to, isSnapshot }
  })
}

/** The ids that are missing between the updates of a symbol. */
function holesOf(symbol: string, all: readonly Stored[]): Array<[from: number, to: number]> {
  const updates = all.filter((one) => one.symbol === symbol && !one.isSnapshot)
  return updates.flatMap(({ from }, i) => {
    const last = updates[i - 1]?.to ?? from - 1
    return from > last + 1 ? [[last + 1, from - 1]] : []
  })
}

/** Waits until each symbol has a snapshot that an update after its last hole joins. @returns all messages */
async function untilAnchored(): Promise<Stored[]> {
  let all: Stored[] = []
  await until('a snapshot of each book, and an update after it', async () => {
    all = await stored()
    return SYMBOLS.every((symbol) => {
      const since = holesOf(symbol, all).at(-1)?.[1] ?? 0
      const ours = all.filter((one) => one.symbol === symbol)
      const snapshots = ours.filter(({ isSnapshot, to }) => isSnapshot && to >= since)
      return snapshots.some(({ to: id }) =>
        ours.some(({ isSnapshot, from, to }) => !isSnapshot && from <= id + 1 && id + 1 <= to),
      )
    })
  })
  return all
}

test('A1, D3 every book gets a usable snapshot at the start, after a reconnect and after a restart; the ledger has the holes', async () => {
  {
    await using first = ingest()
    const all = await untilAnchored()
    for (const symbol of SYMBOLS) assert.deepEqual(holesOf(symbol, all), [], symbol)
    parts.exchange.faults.add({ kind: 'unreachable', forMs: 1500 })
    parts.exchange.faults.add({ kind: 'cut' })
    await until('a hole in each book', async () => {
      const now = await stored()
      return SYMBOLS.every((symbol) => holesOf(symbol, now).length === 1)
    })
    await untilAnchored()
    const { books } = first.ingestion.status()
    assert.deepEqual([books?.symbols, books?.withoutAnchor], [2, []])
  }
  await using second = ingest()
  await until('another hole in each book', async () => {
    const now = await stored()
    return SYMBOLS.every((symbol) => holesOf(symbol, now).length === 2)
  })
  const all = await untilAnchored()
  let rows = await parts.ledger()
  await until('the rows of the ledger', async () => {
    rows = (await parts.ledger()).filter(({ event_type }) => event_type === 'depth')
    return rows.length >= 4
  })
  for (const symbol of SYMBOLS) {
    const found = rows
      .filter((row) => row.symbol === symbol)
      .map(({ from_id, to_id, cause, status }) => [from_id, to_id, cause, status])
    const [reconnect = [0, 0], restart = [0, 0]] = holesOf(symbol, all)
    assert.deepEqual(found, [
      [...reconnect, 'reconnect', 'unrecoverable'],
      [...restart, 'restart', 'unrecoverable'],
    ])
  }
  assert.ok(rows.every(({ from_time, to_time }) => (from_time ?? 0) < (to_time ?? 0)))
  assert.equal(second.ingestion.status().openGaps.filter(({ gapId }) => gapId.includes('/depth/')).length, 0)
})

/** Waits for a later update, and asserts that all are stored without a hole or another snapshot. */
async function assertUnbroken(snapshots: number): Promise<void> {
  const last = Math.max(...(await stored()).map(({ to }) => to))
  await until('later updates', async () => (await stored()).some(({ to }) => to > last))
  const all = await stored()
  for (const symbol of SYMBOLS) assert.deepEqual(holesOf(symbol, all), [], symbol)
  assert.equal(all.filter(({ isSnapshot }) => isSnapshot).length, snapshots)
  assert.deepEqual(await parts.ledger(), [])
}

const FULL_SNAPSHOTS = 2 * SYMBOLS.length

async function untilFullSnapshots(): Promise<void> {
  await until('full snapshots', async () => {
    return (await stored()).filter(({ isSnapshot }) => isSnapshot).length === FULL_SNAPSHOTS
  })
}

for (const connections of [1, 2])
  test(`D2 with CONNECTIONS_PER_STREAM=${connections} a shutdown of the server leaves no hole and needs no snapshot`, async () => {
    await using running = ingest({ CONNECTIONS_PER_STREAM: String(connections) })
    await untilFullSnapshots()
    parts.exchange.faults.add({ kind: 'serverShutdown', graceMs: 10_000 })
    await until('new connections', () => running.ingestion.status().rollovers >= connections)
    await assertUnbroken(FULL_SNAPSHOTS)
  })

for (const connections of [1, 2])
  test(`D2 with CONNECTIONS_PER_STREAM=${connections} connections that reach their age leave no hole and need no snapshot`, async () => {
    // Instead of 23 hours.
    const config = { connectionMaxAgeMs: 2000 }
    await using running = ingest({ CONNECTIONS_PER_STREAM: String(connections) }, config)
    await untilFullSnapshots()
    const before = running.ingestion.status().rollovers
    await until('new connections', () => running.ingestion.status().rollovers >= before + 3 * connections)
    await assertUnbroken(FULL_SNAPSHOTS)
  })
