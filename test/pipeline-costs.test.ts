import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeAll } from '../bench/alone/decode.ts'
import { payloads } from '../bench/alone/frames.ts'
import { fetchedFrom, gather } from '../bench/alone/insert.ts'
import { timed } from '../bench/alone/timed.ts'

const FRAMES = 30_000
const ROUNDS = 5
/**
 * Relative to parsing the same text. Measured: three to four for ingestion, two to three for the
 * consumer; the limits are twice that.
 */
const AT_MOST = { ingestion: 9, consumer: 7 }

test('a message costs ingestion and the consumer a small multiple of JSON.parse in CPU time of the same run', async (context) => {
  const frames = payloads(['BTCUSDT', 'ETHUSDT', 'BNBUSDT'], FRAMES)
  const fetched = fetchedFrom(frames)
  const parseAll = () => {
    for (const frame of frames) JSON.parse(frame.toString())
  }
  const rounds = []
  for (let round = 0; round < ROUNDS; round++) {
    const parse = await timed(FRAMES, parseAll)
    const ingestion = await timed(FRAMES, () => decodeAll(frames, () => {}))
    const consumer = await timed(FRAMES, () => void gather(fetched, 500))
    rounds.push({ ingestion: ingestion.micros / parse.micros, consumer: consumer.micros / parse.micros })
  }
  // The best round: disturbances increase the cost, never reduce it.
  for (const service of ['ingestion', 'consumer'] as const) {
    const ratios = rounds.map((round) => round[service]).sort((a, b) => a - b)
    const shown = ratios.map((ratio) => ratio.toFixed(1)).join(', ')
    context.diagnostic(`${service}: ${shown} times JSON.parse`)
    assert.ok((ratios[0] ?? 0) < AT_MOST[service], `${service}: ${shown}`)
  }
})
