import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { after, before, test } from 'node:test'
import { parse } from 'yaml'
import { z } from 'zod'
import { ArchiveCounts } from '../src/archive/counts.ts'
import { ARCHIVE_METRICS } from '../src/archive/metrics.ts'
import { CONSUMER_METRICS } from '../src/consumer/metrics.ts'
import { createMetrics, isCounter } from '../src/foundation/telemetry/metrics.ts'
import { VERSION } from '../src/foundation/telemetry/service.ts'
import type { ArchiveStatus } from '../src/foundation/telemetry/status.ts'
import { INGESTION_METRICS } from '../src/ingestion/metrics.ts'
import { produce } from './support/messages.ts'
import { createPipelineParts, type PipelineParts } from './support/pipeline-parts.ts'
import { askedBy, type Exposition, parseExposition } from './support/promql.ts'
import { type ConsumerProcess, type IngestionProcess, startConsumerProcess } from './support/services.ts'
import { until } from './support/wait-for.ts'

const ROOT = resolve(import.meta.dirname, '..')
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8')
const SYMBOLS = Array.from({ length: 40 }, (_, i) => `COIN${i}USDT`)
/**
 * More series would depend on the number of symbols. Node's and the process's metrics are about 60
 * per service. There are five stream types and fourteen causes.
 */
const MOST_SERIES = 290

const DECLARED = Object.entries({ ...INGESTION_METRICS, ...CONSUMER_METRICS, ...ARCHIVE_METRICS })

/** Metrics from other sources: Prometheus itself and the node exporter. */
const OF_OTHERS = new Map([
  ['up', []],
  ['ALERTS', ['alertname', 'alertstate']],
  ['node_filesystem_avail_bytes', ['mountpoint']],
  ['node_filesystem_size_bytes', ['mountpoint']],
])
/** Labels that Prometheus adds to every target. */
const OF_TARGETS = ['job', 'instance']

const ARCHIVE_STATUS: ArchiveStatus = {
  ...new ArchiveCounts().totals,
  service: 'archive',
  ...{ version: VERSION, ready: true, reason: '', uptimeMs: 0, oldestUncommittedMs: 0 },
  ...{ consumed: 0, deadLetters: 0, pending: 0, heldBytes: 0 },
  partitions: [{ topic: 'binance.trades', partition: 0, nextOffset: 0, endOffset: 0, lag: 0, lagAgeMs: 0 }],
}

let parts: PipelineParts
let ingestion: IngestionProcess | undefined
let consumer: ConsumerProcess | undefined
let exposed: Exposition

before(async () => {
  parts = await createPipelineParts({ messagesPerSecond: 900, symbols: SYMBOLS, skew: 0 })
  consumer = await startConsumerProcess({ ...parts.env, SYMBOLS: SYMBOLS.join() })
  await consumer.ready()
  ingestion = await parts.ingest({ SYMBOLS: SYMBOLS.join() })
  await ingestion.ready()
})

after(async () => {
  await ingestion?.[Symbol.asyncDispose]()
  await consumer?.[Symbol.asyncDispose]()
  await parts?.[Symbol.asyncDispose]()
})

test('the metrics show a cut connection, its gap, the lost quotes, a refused request and a dead letter', async () => {
  await scraped('data of all streams', [
    ['tapeline_ingestion_streams', { type: 'bookTicker' }, (value) => value === SYMBOLS.length],
    ['tapeline_consumer_rows_inserted_total', { type: 'bookTicker' }, (value) => value > 100],
    ['tapeline_consumer_rows_inserted_total', { type: 'trade' }, (value) => value > 100],
  ])
  parts.exchange.faults.add({ kind: 'restError', status: 429, retryAfterSeconds: 1, count: 1 })
  parts.exchange.faults.add({ kind: 'unreachable', forMs: 1500 })
  parts.exchange.faults.add({ kind: 'cut' })
  await produce(parts.topics.env.KAFKA_TRADES_TOPIC, 'BTCUSDT', [Buffer.from('no JSON')])
  exposed = await scraped('the cut, and the recovery', [
    ['tapeline_ingestion_connections_lost_total', {}, (value) => value >= 1],
    ['tapeline_ingestion_gaps_opened_total', { type: 'trade', cause: 'reconnect' }, (value) => value > 0],
    ['tapeline_ingestion_gaps_closed_total', { type: 'trade', status: 'filled' }, (value) => value > 0],
    ['tapeline_ingestion_open_gap_ids', {}, (value) => value === 0],
    ['tapeline_ingestion_book_ticker_outages_total', { cause: 'reconnect' }, (value) => value > 0],
    ['tapeline_ingestion_book_ticker_outage_seconds_total', { cause: 'reconnect' }, (value) => value > 1],
    ['tapeline_ingestion_rest_requests_total', { answer: '429' }, (value) => value === 1],
    ['tapeline_ingestion_rest_requests_total', { answer: 'ok' }, (value) => value > 0],
    ['tapeline_ingestion_rest_ip_weight', {}, (value) => value > 0],
    ['tapeline_ingestion_rest_weight_total', {}, (value) => value > 0],
    ['tapeline_ingestion_clock_offset_seconds', {}, (value) => Math.abs(value) < 1],
    ['tapeline_consumer_dead_letters_total', { reason: 'value is not JSON' }, (value) => value === 1],
    ['tapeline_consumer_database_size_bytes', {}, (value) => value > 1_000_000],
    [
      'tapeline_consumer_topic_retention_seconds',
      { topic: parts.topics.env.KAFKA_TRADES_TOPIC },
      (value) => value === 86_400,
    ],
    ['tapeline_consumer_commits_total', { result: 'ok' }, (value) => value > 0],
    ['tapeline_consumer_flush_seconds_total', {}, (value) => value > 0],
  ])
})

test('a metric follows the naming conventions, keeps its help and labels, and exists from the start', () => {
  const eventful = ['tapeline_ingestion_frames_not_forwarded_total']
  for (const [name, { help, labels = [] }] of DECLARED) {
    assert.equal(exposed.types.get(name), isCounter(name) ? 'counter' : 'gauge', name)
    assert.match(name, /^tapeline_(ingestion|consumer|archive)_[a-z_]+$/)
    assert.doesNotMatch(name, /_(ms|millis|milliseconds|kb|mb|minutes|hours)(_|$)/, name)
    assert.match(help, /^[A-Z0-9].*\.$/, name)
    const samples = exposed.samples.filter((sample) => sample.name === name)
    assert.ok(samples.length > 0 || eventful.includes(name), `${name} has no value`)
    for (const sample of samples)
      assert.deepEqual(Object.keys(sample.labels).toSorted(), [...labels].toSorted(), name)
  }
})

test('the number of series does not depend on the number of symbols', () => {
  const ours = exposed.samples.filter(({ name }) => name.startsWith('tapeline_'))
  assert.ok(ours.length < MOST_SERIES, `${ours.length} series`)
  for (const { name, labels } of ours)
    assert.ok(
      !Object.values(labels).some((value) => /COIN\d+/i.test(value)),
      `${name} ${JSON.stringify(labels)}`,
    )
})

const EXPRESSIONS = z.object({
  groups: z.array(
    z.object({
      rules: z.array(
        z.object({ alert: z.string(), expr: z.string(), annotations: z.record(z.string(), z.string()) }),
      ),
    }),
  ),
})
const TARGET = z.object({ expr: z.string(), legendFormat: z.string() })
const DASHBOARD = z.object({
  uid: z.string(),
  panels: z.array(
    z.object({ id: z.int(), title: z.string(), type: z.string(), targets: z.array(TARGET).optional() }),
  ),
})

test('every alert uses metrics and labels that the services have', () => {
  const { groups } = EXPRESSIONS.parse(parse(read('ops/prometheus/alerts.yml')))
  for (const { alert, expr, annotations } of groups.flatMap(({ rules }) => rules)) {
    const shown = Object.values(annotations).flatMap((text) =>
      [...text.matchAll(/\$labels\.(\w+)/g)].map((match) => match[1] ?? ''),
    )
    requireKnown(alert, expr, shown)
  }
})

test('every panel of the Grafana dashboard uses metrics and labels that the services have', () => {
  const { panels } = DASHBOARD.parse(JSON.parse(read('ops/grafana/dashboards/tapeline.json')))
  assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length)
  const shown = new Set<string>()
  for (const { title, targets = [], type } of panels) {
    assert.equal(targets.length > 0, type !== 'row', title)
    for (const { expr, legendFormat } of targets) {
      const labels = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map((match) => match[1] ?? '')
      requireKnown(title, expr, labels)
      for (const { name } of askedBy(expr).metrics) shown.add(name)
    }
  }
  const unseen = DECLARED.map(([name]) => name).filter((name) => !shown.has(name))
  assert.deepEqual(unseen, [])
})

test('every metric named in the run-book exists', () => {
  const declared = DECLARED.map(([name]) => name)
  const text = read('docs/operations.md')
  const whole = [...text.matchAll(/\b(tapeline_[a-z]\w+)/g)].map((match) => match[1] ?? '')
  const others = ['tapeline_writer', 'tapeline_reader', 'tapeline_migrator']
  assert.deepEqual(
    whole.filter((name) => !declared.includes(name) && !others.includes(name)),
    [],
  )
  // After a full name, further ones are abbreviated by their endings.
  // A slash follows the folders of an archive.
  const ends = [...text.matchAll(/`(_[a-z]\w+)\b(?!\/)/g)].map((match) => match[1] ?? '')
  const known = declared.map((name) => name.replace(/^tapeline_(ingestion|consumer|archive)/, ''))
  assert.ok(whole.length > 20 && ends.length > 20)
  assert.deepEqual(
    ends.filter((end) => !known.includes(end)),
    [],
  )
})

test('the check of names detects an unknown metric, selector label and grouping label', () => {
  for (const planted of [
    'sum(rate(tapeline_ingestion_frames_totl[5m]))',
    'tapeline_ingestion_frames_total{outcom="rejected"}',
    'sum by (outcom) (tapeline_ingestion_frames_total) > 0',
    'tapeline_ingestion_ready == 0 unless node_load1 > 3',
  ])
    assert.throws(() => requireKnown('planted', planted, []), planted)
  assert.throws(() => requireKnown('planted', 'tapeline_ingestion_ready == 0', ['outcome']))
})

function requireKnown(where: string, expression: string, shown: readonly string[]): void {
  const { metrics, grouping } = askedBy(expression)
  assert.ok(metrics.length > 0, `${where}: no metric is queried`)
  const labels = new Set(OF_TARGETS)
  for (const { name, labels: matched } of metrics) {
    const known =
      OF_OTHERS.get(name) ??
      (exposed.types.has(name) ? labelsOf(name) : assert.fail(`${where}: metric ${name} does not exist`))
    for (const label of known) labels.add(label)
    for (const label of matched)
      assert.ok([...known, ...OF_TARGETS].includes(label), `${where}: ${name} has no label ${label}`)
  }
  for (const label of [...grouping, ...shown])
    assert.ok(labels.has(label), `${where}: no metric has the label ${label}`)
}

function labelsOf(name: string): string[] {
  const [, metric] = DECLARED.find(([declared]) => declared === name) ?? []
  const samples = exposed.samples.filter((sample) => sample.name === name)
  return [...(metric?.labels ?? []), ...new Set(samples.flatMap((sample) => Object.keys(sample.labels)))]
}

async function scrape(): Promise<Exposition> {
  const texts = await Promise.all(
    [ingestion, consumer].map(async (service) => {
      const response = await fetch(`${service?.url}/metrics`, { signal: AbortSignal.timeout(5000) })
      assert.match(response.headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4/)
      return response.text()
    }),
  )
  texts.push(await createMetrics('archive', () => ARCHIVE_STATUS, ARCHIVE_METRICS)())
  return parseExposition(texts.join('\n'))
}

type Wanted = [name: string, labels: Record<string, string>, holds: (value: number) => boolean]

/** Scrapes until all conditions are met. */
async function scraped(what: string, wanted: readonly Wanted[]): Promise<Exposition> {
  let unmet: string[] = []
  return until(what, async () => {
    const now = await scrape()
    unmet = wanted.flatMap(([name, labels, holds]) => {
      const found = now.samples.find(
        (one) =>
          one.name === name && Object.entries(labels).every(([label, value]) => one.labels[label] === value),
      )
      return found !== undefined && holds(found.value)
        ? []
        : [`${name} ${JSON.stringify(labels)} is ${found?.value}`]
    })
    if (unmet.length > 0) throw new Error(unmet.join('; '))
    return now
  })
}
