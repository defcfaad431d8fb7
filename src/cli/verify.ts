import { Command, InvalidArgumentError, Option } from 'commander'
import { renderAudit } from '../audit/report.ts'
import { parseUtc, type Scope } from '../audit/scope.ts'
import { mayBeSettling } from '../audit/settling.ts'
import type { Audit, Watermark } from '../audit/shape.ts'
import { type AuditOptions, verify } from '../audit/verify.ts'
import { openEndOffsets } from '../audit/watermark.ts'
import { describeError, TapelineError } from '../errors.ts'
import { kafkaConnection, topicNames } from '../kafka/config.ts'
import { readRunningEndpoints } from '../local/process-registry.ts'
import { isSymbol } from '../market/fields.ts'
import { loadSettings, type Settings, withoutPassword } from '../settings/load.ts'
import { withOrigin } from '../settings/origin.ts'
import type { Database } from '../store/database.ts'
import { openPostgres } from '../store/postgres.ts'
import { sleep } from '../timing/backoff.ts'

/** How long, and how often, to look again before ids that may be on their way count as missing. */
const SETTLE_LIMIT_MS = 30_000
const SETTLE_STEP_MS = 2000

interface VerifyFlags {
  readonly json?: boolean
  readonly symbol?: string[]
  readonly from?: string
  readonly to?: string
  readonly limit: number
}

export function verifyCommand(): Command {
  return new Command('verify')
    .description(
      'audit what is stored; exit 1 if anything is missing, doubled or differs that nothing explains',
    )
    .option('--symbol <symbols...>', 'these alone; all when not given')
    .option('--from <time>', 'from this day or time on, UTC')
    .option('--to <time>', 'until this time, UTC; a day is included to its end')
    .addOption(
      new Option('--limit <count>', 'how many cases of a finding are named').default(5).argParser(positive),
    )
    .option('--json', 'print the whole audit as JSON, whose shape docs/verify.md describes')
    .addHelpText(
      'after',
      `\nExamples:
  bin/tapeline verify                                    while \`bin/tapeline up\` runs, or with DATABASE_URL set
  bin/tapeline verify --symbol BTCUSDT --from 2026-01-31 --to 2026-01-31
  bin/tapeline verify --json --limit 100`,
    )
    .action(async (flags: VerifyFlags) => {
      const scope = scopeOf(flags)
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      const running = readRunningEndpoints(settings.DATA_DIR)
      const url = settings.isSet('DATABASE_URL')
        ? settings.DATABASE_URL
        : (running?.databaseUrl ?? settings.DATABASE_URL)
      const audit = await auditAt(url, settings, running?.kafkaBrokers, { scope, limit: flags.limit })
      console.log(flags.json === true ? JSON.stringify(audit, null, 2) : renderAudit(audit))
      if (audit.verdict === 'not clean') process.exitCode = 1
    })
}

async function auditAt(
  url: string,
  settings: Settings,
  runningBrokers: string | undefined,
  options: Omit<AuditOptions, 'readEnds'>,
): Promise<Audit> {
  const { trades, bookTicker, gaps, deadLetters } = topicNames(settings)
  const kafka = kafkaConnection(settings)
  const brokers =
    settings.isSet('KAFKA_BROKERS') || runningBrokers === undefined
      ? kafka.brokers
      : runningBrokers.split(',')
  const ends = await openEndOffsets({ ...kafka, brokers }, [trades, bookTicker, gaps, deadLetters])
  const database = openPostgres({
    url,
    poolMin: 0,
    poolMax: 1,
    queryTimeoutMs: null,
    applicationName: 'tapeline-verify',
  })
  try {
    return await verifyPatiently(database, { ...options, readEnds: ends.read })
  } catch (error) {
    if (error instanceof TapelineError && (error.code === 'ACCESS' || error.code === 'INPUT')) throw error
    const shown = withoutPassword(url)
    const where = url === settings.DATABASE_URL ? withOrigin(settings, 'DATABASE_URL', shown) : shown
    throw new TapelineError('DATABASE', `${where} cannot be audited: ${describeError(error)}`, {
      fix: 'Start `bin/tapeline up`, or set DATABASE_URL to a database that `bin/tapeline migrate` has prepared.',
      cause: error,
    })
  } finally {
    await database.close()
    await ends.close()
  }
}

/**
 * Looks again for a while where rows may still be on their way: a lasting loss is still one after that, and a backlog
 * that is being stored is none.
 */
async function verifyPatiently(database: Database, options: AuditOptions): Promise<Audit> {
  const deadlineMs = performance.now() + SETTLE_LIMIT_MS
  let audit = await verify(database, options)
  let first: Watermark | null = null
  while (mayBeSettling(audit, first) && performance.now() < deadlineMs) {
    console.error('Ids are missing that may be on their way; looking again ...')
    first ??= audit.watermark
    await sleep(SETTLE_STEP_MS)
    audit = await verify(database, options)
  }
  return audit
}

/** @throws TapelineError `INPUT` naming the option that is wrong */
function scopeOf({ symbol, from, to }: VerifyFlags): Scope {
  const symbols = symbol?.flatMap((text) => text.split(',')).map((text) => text.trim().toUpperCase())
  const odd = symbols?.find((one) => !isSymbol(one))
  if (odd !== undefined)
    throw new TapelineError('INPUT', `--symbol ${odd}: not a symbol`, { fix: 'Name it as BTCUSDT.' })
  const scope = {
    symbols: symbols === undefined ? null : [...new Set(symbols)],
    fromMs: from === undefined ? null : parseUtc('--from', from, 'from'),
    toMs: to === undefined ? null : parseUtc('--to', to, 'to'),
  }
  if (scope.fromMs !== null && scope.toMs !== null && scope.fromMs >= scope.toMs)
    throw new TapelineError('INPUT', `--from ${from} is not before --to ${to}`, { fix: 'Swap them.' })
  return scope
}

function positive(text: string): number {
  const count = Number(text)
  if (!/^\d{1,6}$/.test(text) || count < 1)
    throw new InvalidArgumentError('Expected a number from 1 to 999999.')
  return count
}
