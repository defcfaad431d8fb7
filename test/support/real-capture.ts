import { createReadStream, existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { createGunzip } from 'node:zlib'

const FOLDER = resolve(import.meta.dirname, '../../../shared/data/binance')

/** A minute of real frames, next to the checkout. */
export const REAL_CAPTURE = resolve(FOLDER, 'spot-btc-eth-2024-08-09-midnight-60s.recvns.ndjson.gz')

/** Six minutes of BTCUSDT, with the changes of its order book and a snapshot. */
export const DEPTH_CAPTURE = resolve(FOLDER, 'spot-btc-2024-08-08.raw.gz')

const missing = (path: string) => (existsSync(path) ? false : 'no captured frames next to this checkout')

/** For the option `skip` of a test that needs it. */
export const NO_CAPTURE = missing(REAL_CAPTURE)
export const NO_DEPTH_CAPTURE = missing(DEPTH_CAPTURE)

/** Its lines, each with its frame. */
export async function* realFrames() {
  for await (const line of linesOf(REAL_CAPTURE))
    yield { line, frame: JSON.parse(line.slice(line.indexOf(' ') + 1)) }
}

export async function* depthFrames() {
  for await (const line of linesOf(DEPTH_CAPTURE)) yield { line }
}

function linesOf(path: string) {
  return createInterface({ input: createReadStream(path).pipe(createGunzip()) })
}
