import assert from 'node:assert/strict'
import { test } from 'node:test'
import pino from 'pino'
import type { FetchedPartition } from '../src/foundation/kafka/codec/fetch-api.ts'
import { FetchedMessage } from '../src/foundation/kafka/codec/record-batch.ts'
import type { RecordFetcher } from '../src/foundation/kafka/kafka-port.ts'
import type { Position } from '../src/foundation/kafka/partition.ts'
import { AcknowledgedState } from '../src/ingestion/checkpoint/acknowledged-state.ts'
import { type Checkpoint, checkpointText, emptyCheckpoint } from '../src/ingestion/checkpoint/checkpoint.ts'
import { CheckpointWriter } from '../src/ingestion/checkpoint/checkpoint-writer.ts'
import { recover } from '../src/ingestion/checkpoint/recovery.ts'
import { TailEpochs } from '../src/ingestion/checkpoint/tail-epochs.ts'
import { GapLedger } from '../src/ingestion/continuity/gap-ledger.ts'
import { LostTail } from '../src/ingestion/lost-tail.ts'
import type { OutgoingMessage } from '../src/ingestion/messages/message.ts'
import { bookTickerValue, gapRow, tradeValue } from './support/records.ts'
import { VirtualClock } from './support/virtual-clock.ts'

const SYMBOL = 'BTCUSDT'
const NAMES = { trades: 't', bookTicker: 'b', depth: 'o', gaps: 'g', checkpoints: 'c', deadLetters: 'd' }
const METADATA = new Map(['t', 'b', 'o', 'g', 'c'].map((topic) => [topic, { id: topic, partitions: 1 }]))
const RECEIPT_MS = 1723161255000
const LOG = pino({ level: 'silent' })

interface LogMessage {
  readonly value: Buffer
  readonly leaderEpoch: number
}

/** Reads logs of one partition like a leader; each message has the epoch of its leader. */
function fetcherOf(logs: Readonly<Record<string, readonly LogMessage[]>>): RecordFetcher {
  const logOf = (topic: string) => logs[topic] ?? []
  const read = ({ topic, partition, offset, leaderEpoch = -1 }: Position): FetchedPartition => {
    const log = logOf(topic)
    const next = log.findIndex((message) => message.leaderEpoch > leaderEpoch)
    const common = next < 0 ? log.length : next
    const nothing = { error: null, diverging: null, messages: [], nextOffset: null, nextLeaderEpoch: -1 }
    const answer = { topic, topicId: topic, partition, startOffset: 0, endOffset: log.length, ...nothing }
    if (leaderEpoch >= 0 && common < offset) {
      const diverging = { offset: common, leaderEpoch: log[common - 1]?.leaderEpoch ?? 0 }
      return { ...answer, diverging }
    }
    if (offset > log.length) return { ...answer, error: 'OFFSET_OUT_OF_RANGE' }
    const last = log.at(-1)
    if (last === undefined || offset === log.length) return answer
    const messages = log
      .slice(offset)
      .map(
        ({ value, leaderEpoch: epoch }, i) =>
          new FetchedMessage(offset + i, Buffer.from(SYMBOL), [], value, 0, value.length, epoch),
      )
    return { ...answer, messages, nextOffset: log.length, nextLeaderEpoch: last.leaderEpoch }
  }
  return {
    connect: async () => METADATA,
    leaderOf: () => 0,
    offsetRanges: async () =>
      [...METADATA.keys()].map((topic) => ({ topic, partition: 0, start: 0, end: logOf(topic).length })),
    fetch: async (_node, positions) => positions.map(read),
    read: async (position) => read(position),
    close: async () => {},
  }
}

const trades = (from: number, to: number, leaderEpoch: number): LogMessage[] =>
  Array.from({ length: to - from }, (_, i) => ({ value: tradeValue({ t: from + i }), leaderEpoch }))

/** Received one second apart, in the order of their ids. */
const quotes = (from: number, to: number, leaderEpoch: number): LogMessage[] =>
  Array.from({ length: to - from }, (_, i) => {
    const us = 1000 * (RECEIPT_MS + 1000 * (from + i))
    return { value: bookTickerValue({ u: from + i, ingestion_timestamp_us: us }), leaderEpoch }
  })

const checkpoint = (counter: number, fields: Partial<Checkpoint>): LogMessage => {
  const partitions = { t: 0, b: 0, g: 0 }
  const value = checkpointText({ ...emptyCheckpoint('one'), counter, partitions, ...fields })
  return { value: Buffer.from(value), leaderEpoch: 0 }
}

const sequence = (last: number) => ({ epoch: 0, first: 0, last, last_time: RECEIPT_MS, holes: [] })

const recovered = async (logs: Parameters<typeof fetcherOf>[0]) =>
  (await recover({ fetcher: () => fetcherOf(logs) }, NAMES, ['trades', 'bookTicker'], [SYMBOL], LOG)).fold

test('C7 a checkpoint beyond the end of its topic is distrusted, also without a leader epoch', async () => {
  const logs = {
    t: trades(0, 900, 1),
    c: [
      checkpoint(1, { offsets: { t: 800, b: 0, g: 0 }, trade: sequence(799) }),
      checkpoint(2, { offsets: { t: 1000, b: 0, g: 0 }, trade: sequence(999) }),
    ],
  }
  const { memory, counters } = await recovered(logs)
  const { trade } = memory.snapshot(SYMBOL)
  const holes = [{ from: 900, to: 999 }]
  assert.deepEqual([trade?.last, trade?.holes], [999, holes], 'it still tells which ids are missing')
  assert.equal(memory.nextOffset('t', 0), 900)
  assert.equal(counters.get(SYMBOL), 2, 'the next counter is above that of the distrusted checkpoint')
})

test('C7 a symbol with an empty checkpoint partition is recovered from its messages in the topics', async () => {
  const { memory } = await recovered({ t: trades(5, 10, 1), b: quotes(0, 3, 1) })
  const { trade, bookTicker } = memory.snapshot(SYMBOL)
  assert.deepEqual([trade?.first, trade?.last, bookTicker?.last_update_id], [5, 9, 2])
  const symbols = [...(await recovered({})).memory.symbols]
  assert.deepEqual(symbols, [], 'it is new if the topics have nothing of it')
})

test('C7 backfilled trades that Kafka lost are missing, although the ledger lists them as filled', async () => {
  const gap = gapRow({ from_id: 100, to_id: 149, cause: 'missed', detected_at: RECEIPT_MS })
  const filled = { ...gap, revision: 2, status: 'filled', closed_at: RECEIPT_MS }
  const rows = [gap, filled].map((one) => ({ value: Buffer.from(JSON.stringify(one)), leaderEpoch: 0 }))
  const holes = [{ from: 100, to: 149 }]
  const c = [
    checkpoint(1, {
      offsets: { t: 950, b: 0, g: 1 },
      trade: { ...sequence(999), holes },
      open_gaps: [gap],
    }),
    checkpoint(2, { offsets: { t: 1010, b: 0, g: 2 }, trade: sequence(1009) }),
  ]
  const live = [...trades(0, 100, 1), ...trades(150, 1000, 1)]
  const { memory } = await recovered({ t: live, g: rows, c })
  assert.deepEqual(memory.snapshot(SYMBOL).trade?.holes, [...holes, { from: 1000, to: 1009 }])
  const whole = await recovered({ t: [...live, ...trades(100, 150, 1)], g: rows, c })
  assert.deepEqual(whole.memory.snapshot(SYMBOL).trade?.holes, [{ from: 1000, to: 1009 }])
})

test('C7 a log that has since grown beyond the checkpoint is compared by leader epoch, and an older checkpoint counts', async () => {
  const logs = {
    t: [...trades(0, 900, 1), ...trades(1000, 1400, 2)],
    c: [
      checkpoint(1, { offsets: { t: 800, b: 0, g: 0 }, leader_epochs: { t: 1 }, trade: sequence(799) }),
      checkpoint(2, { offsets: { t: 1000, b: 0, g: 0 }, leader_epochs: { t: 1 }, trade: sequence(999) }),
    ],
  }
  const { memory, recoveredMessages } = await recovered(logs)
  const { trade } = memory.snapshot(SYMBOL)
  assert.deepEqual([trade?.last, trade?.holes], [1399, [{ from: 900, to: 999 }]])
  assert.equal(recoveredMessages, 500, 'of the messages after the older one')
})

test('C8 a checkpoint counts from offset 0 in a recreated topic, whatever its size, and keeps its knowledge', async () => {
  const at = { offsets: { t: 800, b: 0, g: 0 }, leader_epochs: { t: 0 }, trade: sequence(799) }
  const logs = {
    t: trades(850, 1800, 0),
    c: [checkpoint(1, { ...at, topic_ids: { t: 'before', b: 'b', g: 'g' } })],
  }
  const { memory, recoveredMessages, truncations } = await recovered(logs)
  const { trade } = memory.snapshot(SYMBOL)
  assert.deepEqual([trade?.first, trade?.last, trade?.holes], [0, 1799, [{ from: 800, to: 849 }]])
  assert.deepEqual([recoveredMessages, truncations], [950, 0])
})

test('C8 without any checkpoint the topics are read from their beginning', async () => {
  const { trade } = (await recovered({ t: trades(100, 200, 0) })).memory.snapshot(SYMBOL)
  assert.deepEqual([trade?.first, trade?.last], [100, 199])
})

test('C7 quotes that Kafka lost are a window from the last one before to the first one that replaced them', async () => {
  const bookTicker = (last: number) => ({
    last_update_id: last,
    last_receipt: RECEIPT_MS + 1000 * last,
    clock_ahead: null,
  })
  const at = (counter: number, last: number) =>
    checkpoint(counter, {
      offsets: { t: 0, b: last + 1, g: 0 },
      leader_epochs: { b: 1 },
      bookTicker: bookTicker(last),
    })
  const logs = { b: [...quotes(0, 50, 1), ...quotes(80, 90, 2)], c: [at(1, 39), at(2, 69)] }
  const { lostQuotes } = await recovered(logs)
  const window = { fromMs: RECEIPT_MS + 49_000, toMs: RECEIPT_MS + 80_000 }
  assert.deepEqual([...lostQuotes], [[SYMBOL, window]])
  const whole = { b: quotes(0, 90, 1), c: [at(1, 39), at(2, 69)] }
  assert.equal((await recovered(whole)).lostQuotes.size, 0)
})

test('C7 a running instance whose messages were lost writes no checkpoint, records the quotes and ends', async () => {
  const clock = new VirtualClock()
  const acknowledged = new AcknowledgedState()
  const sent: OutgoingMessage[] = []
  const logs = { t: trades(0, 10, 1), b: quotes(0, 20, 3) }
  const epochs = new TailEpochs({ fetcher: () => fetcherOf(logs) }, ['t', 'b', 'g'], clock, LOG)
  const checkpoints = new CheckpointWriter({
    instance: 'one',
    symbols: new Set([SYMBOL]),
    names: NAMES,
    topics: METADATA,
    clock,
    counters: new Map(),
    ledgerRead: () => 0,
    epochs,
    topicId: (topic) => topic,
    acknowledged,
    send: (message) => sent.push(message),
  })
  const ended: unknown[] = []
  const windows: unknown[][] = []
  const topicIds = new Map<string, string>()
  const lostTail = new LostTail({
    context: {
      ports: { clock },
      topics: METADATA,
      symbols: new Set([SYMBOL]),
      producer: { settled: async () => {} },
      onFatal: (error) => ended.push(error),
      log: LOG,
    },
    bookTicker: 'b',
    acknowledged,
    checkpoints,
    ledger: new GapLedger(
      ({ symbol, from_time, to_time, cause }) => windows.push([symbol, from_time, to_time, cause]),
      () => RECEIPT_MS,
    ),
    topicWatch: { idOf: (topic) => topicIds.get(topic) ?? topic, check: async () => true },
    signal: new AbortController().signal,
  })
  const quoted = (id: number, timeMs: number) =>
    acknowledged.event({ symbol: SYMBOL, type: 'bookTicker', epoch: 0, firstId: id, id, timeMs })
  quoted(19, RECEIPT_MS)
  const acknowledge = (first: number, offset: number) => {
    const next = { topic: 'b', partition: 0, offset }
    const [written] = sent
    const messages = written === undefined ? [] : Array.from({ length: offset - first }, () => written)
    lostTail.check(messages, next)
    acknowledged.acknowledge([], next)
  }
  acknowledge(10, 20)
  await epochs.learn([{ topic: 't', partition: 0, offset: 10 }])
  assert.equal(epochs.leaderEpoch({ topic: 't', partition: 0, offset: 10 }), 1)
  assert.equal(epochs.leaderEpoch({ topic: 't', partition: 0, offset: 9 }), -1)
  await checkpoints.writeChanged()
  assert.equal(sent.length, 1)
  const written: Checkpoint = JSON.parse(sent[0]?.value?.toString() ?? '')
  assert.deepEqual([written.offsets['b'], written.leader_epochs], [20, { b: 3 }])

  // Rows that waited while writing was suspended are written afterwards.
  checkpoints.onSettled(sent)
  quoted(25, RECEIPT_MS + 5000)
  const writing = checkpoints.writeChanged()
  checkpoints.hold()
  await writing
  assert.equal(sent.length, 1)
  checkpoints.resume()
  await checkpoints.writeChanged()
  assert.equal(sent.length, 2)

  checkpoints.onSettled(sent)
  quoted(30, RECEIPT_MS + 9000)
  acknowledge(20, 25)
  assert.deepEqual([ended, windows], [[], []])
  // The topic was recreated: its offsets begin at 0, and checkpoints continue once its new id is
  // known.
  acknowledge(0, 3)
  await checkpoints.writeChanged()
  assert.equal(sent.length, 2)
  topicIds.set('b', 'another')
  await clock.advance(1000)
  acknowledge(3, 25)
  await checkpoints.writeChanged()
  assert.equal(sent.length, 3)
  assert.deepEqual([ended, windows], [[], []])

  checkpoints.onSettled(sent)
  acknowledge(22, 30)
  await checkpoints.writeChanged()
  await clock.advance(1000)
  assert.equal(sent.length, 3, 'no checkpoint claims messages that Kafka has lost')
  assert.equal(ended.length, 1)
  assert.match(String(ended[0]), /from 22 to 25/)
  assert.deepEqual(windows, [
    [SYMBOL, RECEIPT_MS + 9000, Math.floor(clock.wallMicros() / 1000), 'truncation'],
  ])
})
