import { Command, InvalidArgumentError } from 'commander'
import { topicNames } from '../foundation/kafka/config.ts'
import type { Position } from '../foundation/kafka/partition.ts'
import { loadSettings } from '../foundation/settings/load.ts'
import { printable } from '../foundation/telemetry/terminal.ts'
import { renderCounts, renderDeadLetter, toJson } from '../tools/dead-letters/report.ts'
import { type RetryOutcome, retryDeadLetters } from '../tools/dead-letters/retry.ts'
import {
  countByReason,
  type DeadLetterFilter,
  type ListedDeadLetter,
  listDeadLetters,
  readPayload,
} from '../tools/dead-letters/stored-dead-letters.ts'
import { countUpTo } from './options.ts'
import { TOOLS_USE, withStoredData } from './stored-data.ts'

/** Payload bytes shown without `--full`. */
const SHOWN_BYTES = 300

export function deadLettersCommand(): Command {
  return new Command('dead-letters')
    .description('list messages that could not be stored, and retry them')
    .addCommand(listCommand())
    .addCommand(retryCommand())
}

type FilterOptions = Pick<DeadLetterFilter, 'reason' | 'topic' | 'symbol' | 'since'>

function withFilters(command: Command): Command {
  return command
    .option('--reason <text>', 'only dead letters with this text in the reason')
    .option('--topic <name>', 'only this topic')
    .option('--symbol <symbol>', 'only this symbol, as named by key or payload', (text) => text.toUpperCase())
    .option(
      '--since <time>',
      'only failures at this UTC time or later: 2026-01-31, 2026-01-31T14:30, or 30m, 12h, 7d ago',
      parseSince,
    )
}

function listCommand(): Command {
  return withFilters(new Command('list'))
    .description('list dead letters, newest first, and count them by reason')
    .option('--all', 'include those that a retry has stored')
    .option('--full', 'show whole payloads')
    .option('--limit <n>', 'maximum number to list; the counts include all', countUpTo(9_999_999), 100)
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  bin/tapeline dead-letters list\n  bin/tapeline dead-letters list --reason decimal --since 12h --full\n  bin/tapeline dead-letters list --all --json',
    )
    .action(async (options: FilterOptions & { all?: true; full?: true; limit: number; json?: true }) => {
      const filter = { ...options, withResolved: options.all === true }
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      const use = { ...TOOLS_USE, failure: 'dead letters cannot be listed' }
      await withStoredData(settings, use, async (database) => {
        const isFull = options.full === true
        const letters = await listDeadLetters(database, filter, options.limit, isFull ? 0 : SHOWN_BYTES)
        const counts = await countByReason(database, filter)
        // One payload at a time: together they may not fit in memory.
        const whole = async (letter: ListedDeadLetter) =>
          isFull ? { ...letter, payload: await readPayload(database, letter) } : letter
        if (options.json === true) {
          process.stdout.write('{"dead_letters":[')
          for (const [index, letter] of letters.entries()) {
            const text = JSON.stringify(toJson(await whole(letter)))
            process.stdout.write(`${index === 0 ? '' : ','}\n${text}`)
          }
          process.stdout.write(`\n],"counts":${JSON.stringify(counts)}}\n`)
          return
        }
        for (const letter of letters) console.log(renderDeadLetter(await whole(letter)))
        console.log(renderCounts(counts, letters.length))
      })
    })
}

function retryCommand(): Command {
  return withFilters(new Command('retry'))
    .description(
      'store dead letters that the current rules accept; exit 1 if one fails again or does not exist',
    )
    .argument('[TOPIC/PARTITION/OFFSET...]', 'only these', parseKeys)
    .option('--dry-run', 'show the result for each, and change nothing')
    .addHelpText(
      'after',
      `
It decodes the original bytes with the consumer's current rules. A dead letter that succeeds is stored once and marked
resolved. One that fails is kept, with the new reason and one more attempt. Several retries may run at the same time.

Examples:
  bin/tapeline dead-letters retry --dry-run
  bin/tapeline dead-letters retry --reason "p is not a decimal" --symbol BTCUSDT
  bin/tapeline dead-letters retry binance.trades/2/1234`,
    )
    .action(async (keys: Position[] = [], options: FilterOptions & { dryRun?: true }) => {
      const filter = { ...options, ...(keys.length > 0 && { keys }) }
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      const dryRun = options.dryRun === true
      const counts = new Map<RetryOutcome['kind'], number>()
      const named = new Set(keys.map(nameOf))
      await withStoredData(
        settings,
        { ...TOOLS_USE, failure: 'dead letters cannot be retried' },
        (database) =>
          retryDeadLetters(database, filter, { topics: topicNames(settings), dryRun }, (key, outcome) => {
            counts.set(outcome.kind, (counts.get(outcome.kind) ?? 0) + 1)
            named.delete(nameOf(key))
            console.log(`${nameOf(key)}  ${sentence(outcome, dryRun)}`)
          }),
      )
      for (const name of named) console.log(`${name}  is not an unresolved dead letter`)
      console.log(summary(counts, dryRun))
      if (counts.has('failed') || counts.has('hopeless') || named.size > 0) process.exitCode = 1
    })
}

function nameOf({ topic, partition, offset }: Position): string {
  return `${topic}/${partition}/${offset}`
}

function sentence(outcome: RetryOutcome, dryRun: boolean): string {
  switch (outcome.kind) {
    case 'stored':
      return dryRun ? 'would be stored' : 'stored, resolved'
    case 'already there':
      return `${dryRun ? 'is' : 'was'} stored already, ${dryRun ? 'would be resolved' : 'resolved'}`
    case 'taken':
      return 'left to another retry'
    case 'failed':
      return `${dryRun ? 'would fail' : 'fails'} again: ${printable(outcome.reason)}`
    case 'hopeless':
      return `cannot be retried: ${printable(outcome.reason)}`
  }
}

function summary(counts: ReadonlyMap<RetryOutcome['kind'], number>, dryRun: boolean): string {
  const n = (kind: RetryOutcome['kind']) => counts.get(kind) ?? 0
  if (counts.size === 0) return 'No unresolved dead letter matches.'
  const figures = [
    `${n('stored')} stored`,
    `${n('already there')} stored already`,
    `${n('failed')} ${dryRun ? 'would fail' : 'failed'} again`,
    `${n('hopeless')} cannot be retried`,
    ...(n('taken') === 0 ? [] : [`${n('taken')} left to another retry`]),
  ]
  return `${figures.join(', ')}${dryRun ? ' (dry run: nothing was changed)' : ''}.`
}

const UNIT_MS: Readonly<Record<string, number>> = { m: 60_000, h: 3_600_000, d: 86_400_000 }

/** Parses a UTC time, or a time ago. */
function parseSince(text: string): Date {
  const [, count, unit = ''] = /^(\d{1,6})([mhd])$/.exec(text) ?? []
  if (count !== undefined) return new Date(Date.now() - Number(count) * (UNIT_MS[unit] ?? 0))
  const isTime = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?Z?)?$/.test(text)
  const time = new Date(text.length > 10 && !text.endsWith('Z') ? `${text}Z` : text)
  if (isTime && !Number.isNaN(time.getTime())) return time
  throw new InvalidArgumentError('Expected a UTC time like 2026-01-31 or 2026-01-31T14:30, or 30m, 12h, 7d.')
}

function parseKeys(text: string, before: Position[] = []): Position[] {
  const [, topic, partition, offset] = /^([\w.-]{1,249})\/(\d{1,9})\/(\d{1,15})$/.exec(text) ?? []
  if (topic === undefined)
    throw new InvalidArgumentError('Expected TOPIC/PARTITION/OFFSET, like binance.trades/2/1234.')
  return [...before, { topic, partition: Number(partition), offset: Number(offset) }]
}
