import { Command, Option } from 'commander'
import { TapelineError } from '../foundation/runtime/errors.ts'
import { interruptible } from '../foundation/runtime/signals.ts'
import { loadSettings, type Settings } from '../foundation/settings/load.ts'
import { countText } from '../foundation/telemetry/plural.ts'
import { Progress } from '../foundation/telemetry/progress.ts'
import { renderAudit } from '../tools/verify/report.ts'
import type { Scope } from '../tools/verify/scope.ts'
import { compareWithTables, verifyArchive, verifyStored } from './audit-stored.ts'
import { countUpTo, parseSymbols, parseTimes, type TimeFlags } from './options.ts'

interface VerifyFlags extends TimeFlags {
  readonly json?: true
  readonly symbol?: string[]
  readonly limit: number
  readonly exchange?: true
  readonly archive?: true
  readonly againstTables?: true
}

export function verifyCommand(): Command {
  return new Command('verify')
    .description('audit the stored data; exits 1 if there are unexplained gaps, duplicates or mismatches')
    .option('--symbol <symbols...>', 'only these symbols; default: all')
    .option('--from <time>', 'from this day or time, UTC')
    .option('--to <time>', 'until this time, UTC; a day is included to its end')
    .option('--limit <count>', 'maximum number of examples per finding', countUpTo(999_999), 5)
    .option('--archive', 'audit the archive of ARCHIVE_URL instead of the database')
    .option(
      '--against-tables',
      'compare the rows of the archive with those of the database, by symbol and day',
    )
    .addOption(
      new Option('--exchange', 'also compare samples of each day with REST (BINANCE_REST_URL)').conflicts(
        'archive',
      ),
    )
    .option('--json', 'print the whole report as JSON (format: docs/verify.md)')
    .addHelpText(
      'after',
      `\nExamples:
  bin/tapeline verify                                    while \`bin/tapeline up\` runs, or with DATABASE_URL
  bin/tapeline verify --symbol BTCUSDT --from 2026-01-31 --to 2026-01-31
  bin/tapeline verify --exchange --from 2026-01-31
  bin/tapeline verify --archive --from 2026-01-31 --to 2026-01-31
  bin/tapeline verify --archive --against-tables --from 2026-01-31 --to 2026-01-31
  bin/tapeline verify --json --limit 100`,
    )
    .action(async (flags: VerifyFlags) => {
      const scope = scopeOf(flags)
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      if (flags.againstTables === true) {
        await compareStored(settings, scope, flags)
        return
      }
      const progress = new Progress()
      const onProgress = (symbol: string, changes: number, all: number) =>
        changes < all
          ? progress.show(changes / all, () => `order book of ${symbol}, ${countText(changes)} changes`)
          : progress.clear()
      const audit = await interruptible((signal) => {
        const options = { scope, limit: flags.limit, signal, onProgress }
        return flags.archive === true
          ? verifyArchive(settings, options)
          : verifyStored(settings, options, flags.exchange === true)
      }).finally(() => progress.clear())
      console.log(flags.json === true ? JSON.stringify(audit, null, 2) : renderAudit(audit))
      if (audit.verdict === 'not clean') process.exitCode = 1
    })
}

async function compareStored(
  settings: Settings,
  scope: Scope,
  { json, archive }: VerifyFlags,
): Promise<void> {
  if (archive !== true)
    throw new TapelineError('INPUT', '--against-tables compares an archive', { fix: 'Add --archive.' })
  const { renderComparison } = await import('../tools/verify/store-comparison.ts')
  const compared = await interruptible((signal) => compareWithTables(settings, scope, signal))
  console.log(json === true ? JSON.stringify(compared, null, 2) : renderComparison(compared))
  if (compared.rows === 0 || compared.differences.length > 0) process.exitCode = 1
}

/** @throws TapelineError `INPUT` naming the wrong option */
function scopeOf({ symbol, ...flags }: VerifyFlags): Scope {
  const symbols = symbol === undefined ? null : parseSymbols(symbol, '--symbol ')
  const scope = { symbols, ...parseTimes(flags) }
  if (scope.fromMs !== null && scope.toMs !== null && scope.fromMs >= scope.toMs)
    throw new TapelineError('INPUT', `--from ${flags.from} is not before --to ${flags.to}`, {
      fix: 'Swap them.',
    })
  return scope
}
