import assert from 'node:assert/strict'
import { test } from 'node:test'
import { DepthFrames, levelsOfDiff } from '../bench/feeder/depth-frames.ts'
import { FrameReader } from '../src/foundation/binance/stream-frame.ts'
import { systemClock } from '../src/foundation/runtime/clock.ts'
import { NO_RECORDED_DEPTH } from './support/recorded-depth.ts'

const SYMBOLS = ['BTCUSDT', 'COIN2USDT', 'COIN300USDT']
/** So many that every symbol repeats the recorded diffs. */
const FRAMES = 3 * 4000
const HEADER_BYTES = 4

test('the frames of the depth stages are diffs whose ids follow, and snapshots have the last id', {
  skip: NO_RECORDED_DEPTH,
}, () => {
  const frames = new DepthFrames(SYMBOLS, 'microsecond', systemClock())
  const reader = new FrameReader('microsecond')
  const bookOf = (symbol: string) => frames.book(symbol, { timeMs: 0 }, 5000)
  const lastIds = new Map(SYMBOLS.map((symbol) => [symbol, bookOf(symbol).lastUpdateId]))
  let [sent, levels] = [0, 0]
  const connection = {
    enqueue(bytes: Buffer): boolean {
      const read = reader.read(bytes.subarray(HEADER_BYTES))
      assert(read.kind === 'event' && read.type === 'depth', read.kind)
      const { event } = read
      const symbol = event.symbol.text
      assert.equal(symbol, SYMBOLS[sent % SYMBOLS.length])
      assert.equal(event.firstId, (lastIds.get(symbol) ?? 0) + 1)
      assert.equal(event.eventTimeUs, 1_700_000_000_000_000 + sent++)
      lastIds.set(symbol, event.id)
      levels += event.bidCount + event.askCount
      return true
    },
  }
  for (let from = 0; from < FRAMES; from += 1000)
    frames.enqueue(connection, from, from + 1000, (index) => 1_700_000_000_000_000 + index)
  assert.equal(sent, FRAMES)
  assert(Math.abs(levels / FRAMES / levelsOfDiff() - 1) < 0.1, `${levels / FRAMES} levels a diff`)
  for (const symbol of SYMBOLS) {
    const { lastUpdateId, bids, asks } = bookOf(symbol)
    assert.equal(lastUpdateId, lastIds.get(symbol))
    assert.deepEqual([bids.length, asks.length], [5000, 5000])
  }
})
