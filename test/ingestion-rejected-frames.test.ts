import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SECOND_UNDER_ID } from '../src/foundation/market/event.ts'
import { MinuteCount } from '../src/ingestion/connection/stream-rates.ts'
import { RejectedFrames } from '../src/ingestion/rejected-frames.ts'
import { columns } from './support/columns.ts'

interface Line {
  readonly reason: string
  readonly count: number
  readonly stream: string | null
  readonly excerpt: string
}

function rejections(readOf: (stream: string) => number = () => 0) {
  const lines: Line[] = []
  const log = { warn: (line: unknown) => lines.push(line as Line) }
  const frames = new MinuteCount()
  const rejected = new RejectedFrames({
    log: log as never,
    rates: { lastMinute: readOf, frames },
    deadLettersTopic: 'd',
    queue: { push() {} },
    clock: { monotonicMs: () => 0 },
  })
  return { lines, frames, rejected }
}

const frame = (stream: string, data = '{}') => Buffer.from(`{"stream":"${stream}","data":${data}}`)

test('F3 logs the first rejected frame of a reason at once, then their number once per minute', () => {
  const { lines, rejected } = rejections()
  for (let ms = 0; ms < 150_000; ms += 100) {
    rejected.tick(ms)
    if (ms < 90_000) rejected.add(frame('btcusdt@trade'), 'p is not a decimal', ms, ms)
  }
  rejected.add(Buffer.from('garbage\n\u0007\u202e\u001b[31m'), 'not JSON', 150_000, 150_000)
  assert.deepEqual(columns(lines, 'reason', 'count', 'stream'), [
    ['p is not a decimal', 1, 'btcusdt@trade'],
    ['p is not a decimal', 599, 'btcusdt@trade'],
    ['p is not a decimal', 300, 'btcusdt@trade'],
    ['not JSON', 1, null],
  ])
  assert.equal(lines[0]?.excerpt, '{"stream":"btcusdt@trade","data":{}}')
  assert.equal(lines[3]?.excerpt, 'garbage [31m')
})

test('F4 names a stream with more than 1 % rejected frames, until a minute or two after the last', () => {
  const { rejected } = rejections((stream) => (stream === 'btcusdt@trade' ? 199 : 50))
  rejected.add(frame('btcusdt@trade'), 'p is not a decimal', 1000, 1000)
  assert.deepEqual([rejected.status(1000), rejected.problem(1000)], [[], ''], '1 of 200')
  rejected.add(frame('btcusdt@trade'), 'q is not a decimal', 1100, 1100)
  rejected.add(frame('btcusdt@trade'), 'p is not a decimal', 1200, 1200)
  const found = [['btcusdt@trade', 'p is not a decimal']]
  assert.deepEqual(columns(rejected.status(1200), 'stream', 'reason'), found)
  assert.equal(
    rejected.problem(1200),
    '2 % of the frames of btcusdt@trade in the last minute were rejected: p is not a decimal',
  )
  rejected.add(frame('ethusdt@trade'), 'E is not a time', 1300, 1300)
  assert.match(
    rejected.problem(1300),
    /^2 % of the frames of ethusdt@trade .* and of 1 other stream more than 1 %: E is not a time$/,
  )
  assert.deepEqual(rejected.status(130_000), [])
})

test('F4 compares frames without a stream name with all frames, and ignores second events', () => {
  const { lines, frames, rejected } = rejections()
  for (let i = 0; i < 200; i++) frames.add(i)
  for (let i = 0; i < 50; i++) rejected.add(frame('btcusdt@trade'), SECOND_UNDER_ID, i, i)
  assert.equal(lines.length, 1)
  rejected.add(Buffer.from('{'), 'not JSON', 200, 200)
  assert.equal(rejected.problem(200), '')
  for (let i = 0; i < 5; i++) rejected.add(Buffer.from('{'), 'not JSON', 300, 300)
  const problem = '3 % of the frames of all streams in the last minute were rejected: not JSON'
  assert.equal(rejected.problem(300), problem)
})

test('remembers a thousand streams, whatever names frames contain', () => {
  const { rejected } = rejections()
  for (let i = 0; i < 5000; i++) rejected.add(frame(`x${i}`), 'not JSON', 0, 0)
  assert.equal(rejected.status(0).length, 1000)
})

test('counts the last minute, and forgets the one before', () => {
  const count = new MinuteCount()
  for (let ms = 0; ms < 120_000; ms += 100) count.add(ms)
  assert.equal(count.at(119_999), 600 + 600 * (1 / 60_000))
  assert.equal(count.at(150_000), 300)
  assert.equal(count.at(240_000), 0)
})
