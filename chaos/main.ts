/**
 * `npm run chaos`: runs the whole pipeline under load, injects random faults from a seed, and
 * proves that nothing was lost. Exit code 0 when everything holds, 1 when not, 2 for a wrong
 * command line. See docs/chaos.md.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { boundedRun } from '../test/support/bounded-run.ts'
import { type ChaosOptions, commandOf, parseOptions } from './options.ts'
import { renderResult } from './report.ts'
import { runChaos } from './run.ts'
import { exactEndMs } from './schedule.ts'

/**
 * Time for the start, the stop and the checks, in addition to the faults and the wait for quiet.
 */
const REST_OF_RUN_MS = 15 * 60_000
/** To compare an order book, on a busy machine. */
const BOOK_MS = 250

function main(given: ChaosOptions): Promise<number> {
  const options = { ...given, logsDir: given.logsDir === null ? null : resolve(given.logsDir) }
  const jsonFile = options.jsonFile === null ? null : resolve(options.jsonFile)
  return boundedRun(
    Math.max(options.forMs, exactEndMs(options)) +
      options.quietMs +
      REST_OF_RUN_MS +
      (options.depth ? options.instants * BOOK_MS : 0),
    async (place) => {
      place.say(`seed ${options.seed}; again: ${commandOf(options)}`)
      const result = await runChaos(options, place)
      console.log(renderResult(result))
      if (jsonFile !== null) {
        mkdirSync(dirname(jsonFile), { recursive: true })
        writeFileSync(jsonFile, `${JSON.stringify({ options, ...result }, null, 2)}\n`)
      }
      return result.ok ? 0 : 1
    },
    () => console.error(`The same faults again: ${commandOf(options)}`),
  )
}

// Everything has been closed; an aborted run may still have pending waits.
process.exit(await main(parseOptions(process.argv.slice(2))))
