import { Command, Option } from 'commander'
import type { KafkaConnection } from '../foundation/kafka/config.ts'
import { topicNames } from '../foundation/kafka/config.ts'
import { sendGapRows } from '../foundation/kafka/gap-sender.ts'
import { isStoredUpTo, readEnds } from '../foundation/kafka/read-range.ts'
import type { IdRow } from '../foundation/market/gap-requests.ts'
import { sleep } from '../foundation/runtime/backoff.ts'
import { TapelineError } from '../foundation/runtime/errors.ts'
import { loadSettings } from '../foundation/settings/load.ts'
import { readOffsets } from '../foundation/store/consumer-offsets.ts'
import type { Database } from '../foundation/store/database.ts'
import { plural } from '../foundation/telemetry/plural.ts'
import { printable } from '../foundation/telemetry/terminal.ts'
import { type GapFilter, planRetry, readGaps } from '../tools/gaps/stored-gaps.ts'
import { countUpTo, parseSymbols, parseTimes, type TimeFlags } from './options.ts'
import { TOOLS_USE, withStoredData } from './stored-data.ts'
import { onKafka, storedKafka } from './stored-kafka.ts'

export function gapsCommand(): Command {
  return new Command('gaps')
    .description(
      'list gaps of trades and order books in the ledger, and have ingestion backfill those of trades',
    )
    .addCommand(listCommand())
    .addCommand(retryCommand())
}

interface FilterFlags extends TimeFlags {
  readonly symbol?: string
}

function withFilters(command: Command): Command {
  return command
    .option('--symbol <symbol>', 'only this symbol')
    .option('--from <time>', 'only gaps that end at this UTC day or time or later')
    .option('--to <time>', 'only gaps that begin before this UTC time; a day is included to its end')
}

const STATUSES = ['open', 'filled', 'unrecoverable'] as const

function listCommand(): Command {
  return withFilters(new Command('list'))
    .description('list the gaps of trades, aggTrades, block trades and depth, in the order of their ids')
    .addOption(new Option('--status <status>', 'only this status').choices(STATUSES))
    .option('--limit <count>', 'maximum number to list; the total counts all', countUpTo(999_999), 100)
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  bin/tapeline gaps list --status unrecoverable\n  bin/tapeline gaps list --symbol BTCUSDT --from 2026-01-31 --json',
    )
    .action(async (flags: FilterFlags & { status?: IdRow['status']; limit: number; json?: true }) => {
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      const use = { ...TOOLS_USE, failure: 'gaps cannot be listed' }
      const rows = await withStoredData(settings, use, (database) => readGaps(database, filterOf(flags)))
      const found = rows.filter(({ status }) => flags.status === undefined || status === flags.status)
      const shown = found.slice(0, flags.limit)
      if (flags.json === true) {
        console.log(JSON.stringify({ gaps: shown, total: found.length }, null, 2))
        return
      }
      for (const row of shown) console.log(`${gapLine(row)}  ${printable(row.cause)}${reasonOf(row)}`)
      const of = found.length === shown.length ? '' : `${shown.length} of `
      console.log(`${of}${plural(found.length, 'gap')}.`)
    })
}

function retryCommand(): Command {
  return withFilters(new Command('retry'))
    .description(
      'ask ingestion to backfill unrecoverable gaps of trades again; exit 1 if a named gap cannot be reopened',
    )
    .option('--id <ids...>', 'only these gaps, including filled ones')
    .option('--dry-run', 'show what would be reopened, and change nothing')
    .addHelpText(
      'after',
      `
A request is a message in the ledger topic. A running ingestion handles it within seconds, or the next one at its start.
It backfills the gap over REST, or marks it unrecoverable again. The user needs the WRITE right on that topic.
Gaps of order books (depth) stay: REST has no past changes. A book is known again from the next snapshot.

Examples:
  bin/tapeline gaps retry --dry-run
  bin/tapeline gaps retry --symbol BTCUSDT --from 2026-01-31 --to 2026-01-31
  bin/tapeline gaps retry --id BTCUSDT/trade/0/1234`,
    )
    .action(async (flags: FilterFlags & { id?: string[]; dryRun?: true }) => {
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      const isDry = flags.dryRun === true
      const filter = { ...filterOf(flags), ...(flags.id === undefined ? {} : { ids: flags.id }) }
      const use = { ...TOOLS_USE, failure: 'gaps cannot be reopened' }
      const outcomes = await withStoredData(settings, use, async (database) => {
        const kafka = storedKafka(settings)
        const topic = topicNames(settings).gaps
        await refuseUnread(database, kafka, topic)
        const planned = await planRetry(database, filter, Date.now())
        const requests = planned.flatMap(({ request }) => (request === null ? [] : [request]))
        if (!isDry) await onKafka(kafka, () => sendGapRows(kafka, topic, requests))
        return planned
      })
      for (const outcome of outcomes) {
        const what = outcome.request === null ? outcome.reason : isDry ? 'would be reopened' : 'reopened'
        console.log(`${gapLine(outcome.row)}  ${what}`)
      }
      const found = new Set(outcomes.map(({ row }) => row.gap_id))
      const unknown = (flags.id ?? []).filter((id) => !found.has(id))
      for (const id of unknown) console.log(`${id}  is not a gap with ids in the ledger`)
      const asked = outcomes.filter(({ request }) => request !== null).length
      const done = isDry ? 'would be reopened (dry run: nothing was changed)' : 'reopened'
      console.log(`${plural(asked, 'gap')} ${done}.`)
      if (unknown.length > 0 || asked < outcomes.length) process.exitCode = 1
    })
}

/** A running consumer stores recent messages within this time. */
const STORED_LIMIT_MS = 5000

/** Refuses while the ledger is not fully stored: a request needs a revision above all others. */
async function refuseUnread(database: Database, kafka: KafkaConnection, topic: string): Promise<void> {
  const ends = await onKafka(kafka, () => readEnds(kafka, 'tapeline-gaps', [topic]))
  const untilMs = performance.now() + STORED_LIMIT_MS
  do {
    if (isStoredUpTo(await readOffsets(database), ends)) return
    await sleep(250)
  } while (performance.now() < untilMs)
  throw new TapelineError('DATABASE', `The database does not have all rows of ${topic} yet`, {
    fix: 'Start the consumer, and retry once it has caught up.',
  })
}

/** @throws TapelineError `INPUT` naming the wrong option */
function filterOf({ symbol, ...times }: FilterFlags): GapFilter {
  const [name] = symbol === undefined ? [] : parseSymbols([symbol], '--symbol ')
  return { symbol: name ?? null, ...parseTimes(times) }
}

/** A gap with its ids, its times and its status. */
export function gapLine({ gap_id, event_type, from_id, to_id, from_time, to_time, status }: IdRow): string {
  const time = (ms: number | null) => (ms === null ? 'unknown' : new Date(ms).toISOString())
  const times = from_time === null && to_time === null ? '' : `  ${time(from_time)} to ${time(to_time)}`
  return `${printable(gap_id)}  ${event_type} ${from_id}..${to_id}${times}  ${status}`
}

function reasonOf({ reason }: IdRow): string {
  return reason === null ? '' : `: ${printable(reason)}`
}
