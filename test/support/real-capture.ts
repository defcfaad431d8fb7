import { createReadStream, existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { createInterface } from 'node:readline'
import { createGunzip } from 'node:zlib'

/** A minute of real frames, next to the checkout. */
export const REAL_CAPTURE = resolve(
  import.meta.dirname,
  '../../../shared/data/binance/spot-btc-eth-2024-08-09-midnight-60s.recvns.ndjson.gz',
)

/** For the option `skip` of a test that needs it. */
export const NO_CAPTURE = existsSync(REAL_CAPTURE) ? false : 'no captured frames next to this checkout'

/** Its lines, each with its frame. */
export async function* realFrames() {
  for await (const line of createInterface({ input: createReadStream(REAL_CAPTURE).pipe(createGunzip()) }))
    yield { line, frame: JSON.parse(line.slice(line.indexOf(' ') + 1)) }
}
