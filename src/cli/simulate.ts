import { Command } from 'commander'
import { plural } from '../foundation/telemetry/plural.ts'
import { writeDailyFiles } from '../sandbox/simulator/daily-files.ts'
import { DEFAULT_SYMBOLS } from '../sandbox/simulator/market/instruments.ts'
import { OptionChecks } from '../sandbox/simulator/option-checks.ts'
import { serveUntilStopped } from '../sandbox/simulator/serve-until-stopped.ts'
import {
  DEFAULT_MESSAGES_PER_SECOND,
  DEFAULT_SEED,
  DEFAULT_SKEW,
  startSimulatedExchange,
} from '../sandbox/simulator/simulated-exchange.ts'
import { parseDay } from '../tools/export/day.ts'

const EXAMPLES = `
Examples:
  $ bin/tapeline simulate
  $ bin/tapeline simulate --symbols BTCUSDT,SOLUSDT --rate 1000 --port 9500
  $ bin/tapeline simulate --faults
  $ bin/tapeline simulate --daily-files downloads --day yesterday
  $ BINANCE_WS_URL=ws://127.0.0.1:9443 BINANCE_REST_URL=http://127.0.0.1:9443 bin/tapeline ingest

The same symbols, rate and seed always give the same market. So --daily-files needs no running exchange: it writes the
files that such an exchange would publish for that day, for \`history check\` and \`history import\`.

Each symbol has an order book, which the streams <symbol>@depth@100ms and <symbol>@depth and GET /api/v3/depth serve;
its best levels are the quotes of bookTicker.`

interface Options {
  readonly port: string
  readonly symbols: string
  readonly rate: string
  readonly seed: string
  readonly depthGroups: string
  readonly faults: boolean
  readonly dailyFiles?: string
  readonly day: string
}

/** `tapeline simulate`: runs only the simulated exchange. */
export function simulateCommand(): Command {
  return new Command('simulate')
    .description('serve a simulated market like the exchange: WebSocket and REST on 127.0.0.1')
    .option('--port <number>', 'port of both; 0 means any free port', '9443')
    .option('--symbols <list>', 'symbols to trade, separated by commas', DEFAULT_SYMBOLS.join(','))
    .option('--rate <number>', 'messages per second over all symbols', String(DEFAULT_MESSAGES_PER_SECOND))
    .option('--seed <number>', 'each seed gives another market', String(DEFAULT_SEED))
    .option(
      '--depth-groups <number>',
      'groups of connections, in turn, whose depth diffs are cut at different moments',
      '1',
    )
    .option('--faults', 'serve /faults on the same port, to inject faults (docs/faults.md)', false)
    .option('--daily-files <folder>', 'write daily files of trades and aggTrades there instead, and exit')
    .option('--day <day>', 'their day: 2026-01-31, today or yesterday', 'yesterday')
    .addHelpText('after', EXAMPLES)
    .action(async (options: Options) => {
      const checks = new OptionChecks()
      const port = checks.number('--port', options.port, { min: 0, max: 65_535, whole: true })
      const rates = { min: 1, max: 200_000, whole: false }
      const messagesPerSecond = checks.number('--rate', options.rate, rates)
      const seeds = { min: 0, max: Number.MAX_SAFE_INTEGER, whole: true }
      const seed = checks.number('--seed', options.seed, seeds)
      const groups = { min: 1, max: 100, whole: true }
      const depthGroups = checks.number('--depth-groups', options.depthGroups, groups)
      const symbols = checks.symbols('--symbols', options.symbols)
      checks.throwIfWrong('simulate')
      const market = { symbols, messagesPerSecond, seed }
      if (options.dailyFiles !== undefined) {
        const nowMs = Date.now()
        const day = parseDay('--day', options.day, nowMs)
        const identity = { ...market, skew: DEFAULT_SKEW }
        const paths = await writeDailyFiles(identity, day.fromMs, nowMs, options.dailyFiles)
        for (const path of paths) console.log(path)
        if (paths.length === 0) console.error(`The simulated market has no trades on ${day.name}`)
        return
      }
      const exchange = await startSimulatedExchange({
        ...market,
        port,
        depthGroups,
        faultApi: options.faults,
      })
      const title = `Simulated exchange, ${plural(symbols.length, 'symbol')}, ${messagesPerSecond} messages/s`
      await serveUntilStopped(title, exchange)
    })
}
