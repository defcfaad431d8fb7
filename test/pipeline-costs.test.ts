import assert from 'node:assert/strict'
import { test } from 'node:test'
import { decodeAll } from '../bench/alone/decode.ts'
import { payloads } from '../bench/alone/frames.ts'
import { fetchedFrom, gather } from '../bench/alone/insert.ts'
import { timed } from '../bench/alone/timed.ts'

const FRAMES = 30_000
const ROUNDS = 5
/** Parsing the same text takes one. Three to four were measured of ingestion, two to three of the consumer: twice that is a change. */
const AT_MOST = { ingestion: 9, consumer: 7 }

test('a message costs ingestion and the consumer a few times what JSON.parse alone costs, in processor time of the same run', async (context) => {
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
  // The best round: what disturbs one makes it dearer, never cheaper.
  for (const service of ['ingestion', 'consumer'] as const) {
    const ratios = rounds.map((round) => round[service]).sort((a, b) => a - b)
    const shown = ratios.map((ratio) => ratio.toFixed(1)).join(', ')
    context.diagnostic(`${service}: ${shown} times JSON.parse`)
    assert.ok((ratios[0] ?? 0) < AT_MOST[service], `${service}: ${shown}`)
  }
})
