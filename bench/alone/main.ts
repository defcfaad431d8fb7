/**
 * Runs one part of the pipeline alone, in a separate process. Writes its figures as JSON to
 * standard output. Arguments: the stage, the number of messages, brokers, database URL.
 */
import { booksOfArchive } from './books.ts'
import { decodeAll } from './decode.ts'
import { storeDepth } from './depth.ts'
import { payloads } from './frames.ts'
import { liveAnHour } from './hour.ts'
import { insertAll } from './insert.ts'
import { produceAll } from './produce.ts'
import { rebuildAll } from './rebuild.ts'
import { timed } from './timed.ts'
import { keepBooks } from './week.ts'

const SYMBOLS = ['BTCUSDT', 'ETHUSDT', 'BNBUSDT']

const [stage = '', count = '', brokers = '', databaseUrl = ''] = process.argv.slice(2)
const frames = ['rebuild', 'depth', 'books', 'week'].includes(stage) ? [] : payloads(SYMBOLS, Number(count))

async function run(): Promise<Record<string, number>> {
  switch (stage) {
    case 'decode': {
      // Twice, so that the measured run uses compiled code.
      decodeAll(frames, () => {})
      const decoded = await timed(frames.length, () => decodeAll(frames, () => {}))
      const parsed = await timed(frames.length, () =>
        frames.forEach((frame) => void JSON.parse(frame.toString())),
      )
      return { 'messages/s': decoded.perSecond, µs: decoded.micros, 'JSON.parse alone µs': parsed.micros }
    }
    case 'produce':
      return produceAll(frames, brokers)
    case 'insert':
      return insertAll(frames, databaseUrl)
    case 'rebuild':
      return rebuildAll(Number(count))
    case 'depth':
      return storeDepth(Number(count), databaseUrl)
    // For manual use only: the part of `depth` that needs no database.
    case 'books':
      return booksOfArchive(Number(count))
    // For manual use only: here the count is messages per second.
    case 'hour':
      return liveAnHour(Number(count))
    // For manual use only: here the count is hours.
    case 'week':
      return keepBooks(Number(count))
    default:
      throw new Error(`Unknown stage ${stage}`)
  }
}

console.log(JSON.stringify(await run()))
process.exit()
