import { Command } from 'commander'
import { sleep } from '../foundation/runtime/backoff.ts'
import { loadSettings, type Settings } from '../foundation/settings/load.ts'
import { countText, plural } from '../foundation/telemetry/plural.ts'
import {
  archiveStatus,
  consumerStatus,
  ingestionStatus,
  type ServiceStatus,
  serviceUrls,
} from '../foundation/telemetry/service-status.ts'
import {
  type ArchiveStatus,
  type BookStatus,
  type ConsumerStatus,
  type IngestionStatus,
  type LatencySummary,
  totalLag,
  unfilledGaps,
} from '../foundation/telemetry/status.ts'
import { drawOn } from '../foundation/telemetry/terminal.ts'
import { bytesText, clockText, msText } from '../sandbox/up/display/text-style.ts'
import { ownProcesses } from '../sandbox/up/own-processes.ts'

interface Answer {
  readonly url: string
  readonly status: ServiceStatus | null
}

/** Moves to the first line and erases everything after it. */
const CLEAR = '\u001b[1;1H\u001b[0J'

const EVERY_MS = 1000

/** `tapeline status`: shows the status of the running services. */
export function statusCommand(): Command {
  return new Command('status')
    .description('show the status of the running services; exit code 1 unless all are ready')
    .option('--json', 'print their answers at /status')
    .option('--watch', 'repeat every second, until Ctrl-C')
    .addHelpText(
      'after',
      `\nIt reads the services at INGEST_URLS, CONSUMER_URLS and ARCHIVE_SERVICE_URLS. Default: those of the running
\`up\`, else INGEST_PORT and CONSUMER_PORT on this machine (ARCHIVE_PORT with DATABASE_URL=none).

Examples:
  bin/tapeline status
  bin/tapeline status --watch
  INGEST_URLS=http://ingest-0:8080 CONSUMER_URLS=http://consumer:8081 bin/tapeline status --json`,
    )
    .action(async (flags: { json?: true; watch?: true }) => {
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      for (;;) {
        const answers = await askAll(settings)
        if (flags.watch === true && process.stdout.isTTY) drawOn(process.stdout, CLEAR)
        console.log(
          flags.json === true ? JSON.stringify(answers, null, 2) : answers.flatMap(linesOf).join('\n'),
        )
        process.exitCode = answers.every(({ status }) => status?.ready === true) ? 0 : 1
        if (flags.watch !== true) return
        await sleep(EVERY_MS)
      }
    })
}

function askAll(settings: Settings): Promise<Answer[]> {
  const { ingestion, consumer, archive } = serviceUrls(settings, ownProcesses(settings))
  const ask = (urls: readonly string[], statusOf: (url: string) => Promise<Answer['status']>) =>
    urls.map(async (url) => ({ url, status: await statusOf(url) }))
  return Promise.all([
    ...ask(ingestion, ingestionStatus),
    ...ask(consumer, consumerStatus),
    ...ask(archive, archiveStatus),
  ])
}

function linesOf({ url, status }: Answer): string[] {
  if (status === null) return [`✗ ${url} does not answer`, '  Start it: bin/tapeline up', '']
  const health = status.ready ? '●' : '✗'
  const head = `${health} ${status.service.padEnd(9)} ${url}, up ${clockText(status.uptimeMs)}${status.ready ? '' : `: ${status.reason || 'starting'}`}`
  return [head, ...detailsOf(status), '']
}

function detailsOf(status: ServiceStatus): string[] {
  switch (status.service) {
    case 'ingestion':
      return ofIngestion(status)
    case 'consumer':
      return ofConsumer(status)
    case 'archive':
      return ofArchive(status)
  }
}

function ofIngestion(status: IngestionStatus): string[] {
  const { source, connections, streams, counters, openGaps, refusals, clockOffsetMs } = status
  const quiet = Object.entries(streams).flatMap(([stream, one]) => (one.quiet ? [stream] : []))
  const refused = (['handshakes', 'rest'] as const).flatMap((side) => {
    const one = refusals[side]
    const name = side === 'rest' ? 'REST' : 'WebSocket handshakes'
    return one === null ? [] : [`  the exchange refuses ${name}: ${one.reason}, next attempt ${one.retryAt}`]
  })
  const unfilled = unfilledGaps(openGaps)
  return [
    `  from ${source ?? 'no exchange yet'}, ${plural(connections.length, 'connection')}, ${plural(Object.keys(streams).length, 'stream')}${quiet.length > 0 ? `, quiet: ${quiet.join(', ')}` : ''}`,
    `  received ${countText(counters.received)}, acknowledged by Kafka ${countText(counters.acknowledged)}, on the way ${countText(counters.queued + counters.inFlight)}`,
    `  backfilled ${countText(counters.backfilled)}, open gaps ${countText(openGaps.length)}, rejected ${countText(counters.rejected)}`,
    `  event → receipt ${latency(status.eventToReceiptMs)}${clockOffsetMs === null ? '' : `, clock offset ${msText(clockOffsetMs)}`}`,
    ...(status.books === null ? [] : bookLines(status.books)),
    ...refused,
    ...(unfilled === null ? [] : [`  ${unfilled.text}${unfilled.fix === '' ? '' : `. ${unfilled.fix}`}`]),
  ]
}

function bookLines({ symbols, needs, oldestAnchorAgeMs, withoutAnchor }: BookStatus): string[] {
  const needed = Object.entries(needs).flatMap(([reason, count]) =>
    count === 0 ? [] : [`${countText(count)} ${reason}`],
  )
  const [first] = withoutAnchor
  const problem = first === undefined || first.problem === null ? '' : `: ${first.problem}`
  return [
    `  ${plural(symbols, 'order book')}, oldest snapshot ${clockText(oldestAnchorAgeMs)} ago, snapshots needed: ${needed.length === 0 ? 'none' : needed.join(', ')}`,
    ...(first === undefined
      ? []
      : [`  ${withoutAnchor.map(({ symbol }) => symbol).join(', ')} without a snapshot${problem}`]),
  ]
}

function ofConsumer({ partitions, counters, retries, receiptToRowMs }: ConsumerStatus): string[] {
  const lag = totalLag(partitions)
  return [
    `  ${plural(partitions.length, 'partition')}, lag ${lag === null ? 'unknown' : countText(lag)}, pending ${countText(counters.pending)}`,
    `  inserted ${countText(counters.inserted)}, already there ${countText(counters.alreadyThere)}, dead letters ${countText(counters.deadLettered)}, retries ${countText(retries)}`,
    `  receipt → row ${latency(receiptToRowMs)}`,
  ]
}

function ofArchive({
  partitions,
  rows,
  bytes,
  segments,
  oldestUncommittedMs,
  newestDay,
}: ArchiveStatus): string[] {
  const lag = totalLag(partitions)
  const count = Object.values(rows).reduce((total, one) => total + one, 0)
  return [
    `  ${plural(partitions.length, 'partition')}, not in files yet ${lag === null ? 'unknown' : countText(lag)}, the oldest read ${msText(oldestUncommittedMs)} ago`,
    `  ${plural(count, 'row')} in ${plural(segments, 'segment')}, ${bytesText(bytes)}, ${newestDay === null ? 'no day published' : `days published to ${newestDay}`}`,
  ]
}

function latency({ count, p50, p99 }: LatencySummary): string {
  if (count === 0) return 'not measured in the last minute'
  return `p50 ${msText(p50)}, p99 ${msText(p99)} over the last minute`
}
