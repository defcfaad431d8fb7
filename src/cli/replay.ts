import { basename } from 'node:path'
import { Command } from 'commander'
import { OptionChecks } from '../sandbox/simulator/option-checks.ts'
import { startReplayExchange } from '../sandbox/simulator/replay-exchange.ts'
import { serveUntilStopped } from '../sandbox/simulator/serve-until-stopped.ts'

const FASTEST = 100_000

const EXAMPLES = `
Examples:
  $ bin/tapeline replay capture.ndjson.gz
  $ bin/tapeline replay capture.ndjson --speed 10
  $ bin/tapeline replay capture.ndjson --speed max --port 9500
  $ BINANCE_WS_URL=ws://127.0.0.1:9443 BINANCE_REST_URL=http://127.0.0.1:9443 bin/tapeline ingest

The replay begins when a client subscribes to a stream in the file.`

/** `tapeline replay FILE`: serves a capture with the exchange's protocol. */
export function replayCommand(): Command {
  return new Command('replay')
    .description('serve a capture like the exchange, at its original speed or another')
    .argument('<file>', 'a capture, plain (.ndjson) or gzipped (.ndjson.gz)')
    .option('--port <number>', 'port of WebSocket and REST; 0 means any free port', '9443')
    .option('--speed <factor>', 'multiple of the original speed, or max: as fast as it is read', '1')
    .option('--faults', 'serve /faults on the same port, to inject faults (docs/faults.md)', false)
    .addHelpText('after', EXAMPLES)
    .action(async (file: string, options: { port: string; speed: string; faults: boolean }) => {
      const checks = new OptionChecks()
      const port = checks.number('--port', options.port, { min: 0, max: 65_535, whole: true })
      const speed =
        options.speed === 'max'
          ? 'max'
          : checks.number('--speed', options.speed, { min: 0.01, max: FASTEST, whole: false, or: 'max' })
      checks.throwIfWrong('replay')
      const exchange = await startReplayExchange({ file, port, speed, faultApi: options.faults })
      await serveUntilStopped(`Replay of ${basename(file)} at speed ${speed}`, exchange, exchange.finished)
    })
}
