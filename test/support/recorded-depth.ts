import { existsSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { withReceiptStamp } from '../../src/foundation/binance/stream-frame.ts'
import type { Quote } from '../../src/foundation/order-book/book-check.ts'
import type { Anchor, BookDiff } from '../../src/foundation/order-book/book-rows.ts'
import { diffOf, type Pair, quoteOf, snapshotOf } from './book-rows.ts'

/** Five minutes of BTCUSDT with depth, and a snapshot, next to the checkout. */
const RECORDED_DEPTH = resolve(import.meta.dirname, '../../../shared/data/binance/spot-btc-2024-08-08.raw.gz')

/** For the option `skip` of a test that needs it. */
export const NO_RECORDED_DEPTH = existsSync(RECORDED_DEPTH)
  ? false
  : 'no recorded frames with depth next to this checkout'

/** Limit of the snapshot's request. */
const SNAPSHOT_LIMIT = 1000

export interface RecordedDepth {
  readonly diffs: BookDiff[]
  readonly quotes: Quote[]
  /** Receipts of the quotes. */
  readonly quotedUs: number[]
  readonly anchor: Anchor
}

interface DepthUpdate {
  readonly E: number
  readonly U: number
  readonly u: number
  readonly b: Pair[]
  readonly a: Pair[]
}

interface BookTicker {
  readonly u: number
  readonly b: string
  readonly B: string
  readonly a: string
  readonly A: string
}

interface Snapshot {
  readonly lastUpdateId: number
  readonly bids: Pair[]
  readonly asks: Pair[]
}

export function recordedDepth(): RecordedDepth {
  const diffs: BookDiff[] = []
  const quotes: Quote[] = []
  const quotedUs: number[] = []
  let anchor: Anchor | null = null
  for (const { text, receivedUs } of recordedLines()) {
    if (text.startsWith(DEPTH)) {
      const { data }: { data: DepthUpdate } = JSON.parse(text)
      const diff = diffOf(data.U, data.u, data.b, data.a, { eventTimeUs: data.E * 1000 })
      diffs.push({ ...diff, receivedUs })
    } else if (text.startsWith(QUOTE)) {
      const { data }: { data: BookTicker } = JSON.parse(text)
      quotedUs.push(receivedUs)
      quotes.push(quoteOf(data.u, [data.b, data.B], [data.a, data.A]))
    } else if (text.startsWith(SNAPSHOT)) {
      const { lastUpdateId, bids, asks }: Snapshot = JSON.parse(text)
      anchor = snapshotOf(lastUpdateId, bids, asks, { limit: SNAPSHOT_LIMIT, receivedUs })
    }
  }
  if (anchor === null) throw new Error('the recorded frames have no snapshot')
  return { diffs, quotes, quotedUs, anchor }
}

/** The diffs and the snapshot as ingestion writes them into the topic, in the recorded order. */
export function recordedDepthValues(): Buffer[] {
  const values: Buffer[] = []
  for (const { text, receivedUs } of recordedLines()) {
    const event = text.startsWith(DEPTH)
      ? text.slice(DEPTH.length + ',"data":'.length, -1)
      : text.startsWith(SNAPSHOT)
        ? text
            .replace('{', '{"e":"depthSnapshot","s":"BTCUSDT",')
            .replace('"bids"', `"limit":${SNAPSHOT_LIMIT},"bids"`)
        : null
    if (event !== null)
      values.push(Buffer.from(withReceiptStamp(event, Math.floor(receivedUs / 1000), receivedUs)))
  }
  return values
}

/** The quotes as ingestion writes them into the topic. */
export function recordedQuoteValues(): Buffer[] {
  return [...recordedLines()]
    .filter(({ text }) => text.startsWith(QUOTE))
    .map(({ text, receivedUs }) => {
      const event = text.slice(QUOTE.length + ',"data":'.length, -1)
      return Buffer.from(withReceiptStamp(event, Math.floor(receivedUs / 1000), receivedUs))
    })
}

const DEPTH = '{"stream":"btcusdt@depth@100ms"'
const QUOTE = '{"stream":"btcusdt@bookTicker"'
const SNAPSHOT = '{"lastUpdateId"'

function* recordedLines() {
  for (const line of gunzipSync(readFileSync(RECORDED_DEPTH)).toString().trimEnd().split('\n')) {
    const space = line.indexOf(' ')
    yield { text: line.slice(space + 1), receivedUs: Math.floor(Number(line.slice(0, space)) / 1000) }
  }
}
