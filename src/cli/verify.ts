import { Command, Option } from 'commander'
import { isSymbol } from '../foundation/market/fields.ts'
import { TapelineError } from '../foundation/runtime/errors.ts'
import { loadSettings } from '../foundation/settings/load.ts'
import { renderAudit } from '../tools/verify/report.ts'
import { parseUtc, type Scope } from '../tools/verify/scope.ts'
import { verifyStored } from './audit-stored.ts'
import { interruptible } from './interruptible.ts'
import { positive } from './numbers.ts'

interface VerifyFlags {
  readonly json?: boolean
  readonly symbol?: string[]
  readonly from?: string
  readonly to?: string
  readonly limit: number
  readonly exchange?: boolean
}

export function verifyCommand(): Command {
  return new Command('verify')
    .description('audit the stored data; exits 1 if there are unexplained gaps, duplicates or mismatches')
    .option('--symbol <symbols...>', 'only these symbols; default: all')
    .option('--from <time>', 'from this day or time, UTC')
    .option('--to <time>', 'until this time, UTC; a day is included to its end')
    .addOption(
      new Option('--limit <count>', 'maximum number of examples per finding').default(5).argParser(positive),
    )
    .option('--exchange', 'also compare samples of each day with REST (BINANCE_REST_URL)')
    .option('--json', 'print the whole report as JSON (format: docs/verify.md)')
    .addHelpText(
      'after',
      `\nExamples:
  bin/tapeline verify                                    while \`bin/tapeline up\` runs, or with DATABASE_URL
  bin/tapeline verify --symbol BTCUSDT --from 2026-01-31 --to 2026-01-31
  bin/tapeline verify --exchange --from 2026-01-31
  bin/tapeline verify --json --limit 100`,
    )
    .action(async (flags: VerifyFlags) => {
      const scope = scopeOf(flags)
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      const audit = await interruptible((signal) =>
        verifyStored(settings, { scope, limit: flags.limit, signal }, flags.exchange === true),
      )
      console.log(flags.json === true ? JSON.stringify(audit, null, 2) : renderAudit(audit))
      if (audit.verdict === 'not clean') process.exitCode = 1
    })
}

/** @throws TapelineError `INPUT` naming the wrong option */
function scopeOf({ symbol, from, to }: VerifyFlags): Scope {
  const symbols = symbol?.flatMap((text) => text.split(',')).map((text) => text.trim().toUpperCase())
  const odd = symbols?.find((one) => !isSymbol(one))
  if (odd !== undefined)
    throw new TapelineError('INPUT', `--symbol ${odd}: not a symbol`, { fix: 'Use the form BTCUSDT.' })
  const scope = {
    symbols: symbols === undefined ? null : [...new Set(symbols)],
    fromMs: from === undefined ? null : parseUtc('--from', from, 'from'),
    toMs: to === undefined ? null : parseUtc('--to', to, 'to'),
  }
  if (scope.fromMs !== null && scope.toMs !== null && scope.fromMs >= scope.toMs)
    throw new TapelineError('INPUT', `--from ${from} is not before --to ${to}`, { fix: 'Swap them.' })
  return scope
}
