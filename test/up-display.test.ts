import assert from 'node:assert/strict'
import { test } from 'node:test'
import { stripVTControlCharacters } from 'node:util'
import { parseDuration } from '../src/cli/options.ts'
import type { ArchiveStatus, ConsumerStatus } from '../src/foundation/telemetry/status.ts'
import { parseLogLine } from '../src/sandbox/processes/log-follower.ts'
import {
  type DisplayState,
  displayLines,
  plainLine,
  summaryLines,
} from '../src/sandbox/up/display/display-lines.ts'
import { ArchiveTotals, RunTotals } from '../src/sandbox/up/display/run-totals.ts'
import { LiveBlock } from '../src/sandbox/up/display/screen.ts'
import { clip, colourStyle, plainStyle } from '../src/sandbox/up/display/text-style.ts'
import { hopelessEnd } from '../src/sandbox/up/stack-parts.ts'

function consumer(uptimeMs: number, trades: number): ConsumerStatus {
  const latency = { count: trades, p50: 812, p90: 1500, p99: 2013, max: 2100 }
  const none = { alreadyThere: 0, discarded: 0, pending: 0 }
  return {
    service: 'consumer',
    version: '0',
    ready: true,
    reason: '',
    uptimeMs,
    generation: 1,
    partitions: [
      { topic: 'binance.trades', partition: 2, nextOffset: 5, endOffset: 47, lag: 42, lagAgeMs: 0 },
    ],
    counters: { ...none, consumed: trades, inserted: trades, deadLettered: 1 },
    rows: { trade: { BTCUSDT: trades }, aggTrade: { BTCUSDT: 3 }, bookTicker: { ETHUSDT: 4 } },
    flushes: 1,
    retries: 0,
    eventToRowMs: latency,
    receiptToRowMs: latency,
  }
}

function state(): DisplayState {
  const totals = new RunTotals()
  totals.add(consumer(1000, 100), 0)
  totals.add(consumer(3000, 1300), 2000)
  return {
    source: { name: 'simulated', url: null },
    uptimeMs: 61_000,
    endsInMs: null,
    parts: [{ name: 'ingest', health: 'waiting', detail: 'not connected: connection refused' }],
    symbols: ['BTCUSDT', 'ETHUSDT', 'BNBUSDT'],
    ingestion: null,
    consumer: consumer(3000, 1300),
    totals: totals.totals(),
    archive: null,
    restarts: 1,
    problems: [{ time: '12:00:00', from: 'ingest', level: 'warn', text: 'connection refused' }],
  }
}

test('the display shows stored rows, latencies and errors, in any terminal', () => {
  const text = displayLines(state(), plainStyle).join('\n')
  assert.match(text, /not Binance/)
  assert.match(text, /BTCUSDT +1,300 +3 +0 +600\n/)
  assert.match(text, /BNBUSDT +0 +0 +0 +0\n/)
  assert.match(text, /all +1,300 +3 +4 +600\n/)
  assert.match(text, /trade → row +812 ms +2,013 ms/)
  assert.match(text, /Kafka lag 42 .* 1 dead letter · 1 restart\n/)
  assert.match(text, /○ ingest +not connected: connection refused/)
  assert.match(text, /12:00:00 ingest: connection refused/)
  assert.equal(stripVTControlCharacters(displayLines(state(), colourStyle).join('\n')), text)
  const plain = /^00:01:01 {2}1,300 trades .* lag 42 {2}1 dead letter {2}ingest: not connected/
  assert.match(plainLine(state()), plain)
  const end = { dataDir: '.tapeline/simulated', again: 'tapeline up --simulate' }
  assert.match(
    summaryLines(state(), end, plainStyle).join('\n'),
    /Stopped after 00:01:01[\s\S]*all +1,300[\s\S]*\.tapeline\/simulated[\s\S]*tapeline up --simulate/,
  )
})

function archive(uptimeMs: number, rows: number, pending: number): ArchiveStatus {
  const none = { deadLetters: 0, heldBytes: 0, lost: 0, lastSegmentMs: 9, publishedDays: 0, publishedRows: 0 }
  return {
    ...none,
    service: 'archive',
    version: '0',
    ready: true,
    reason: '',
    uptimeMs,
    partitions: [
      { topic: 'binance.trades', partition: 2, nextOffset: 5, endOffset: 47, lag: pending, lagAgeMs: 0 },
    ],
    consumed: rows + pending,
    pending,
    oldestUncommittedMs: 4200,
    segments: 3,
    rows: { raw_trades: rows },
    bytes: rows * 9,
    duplicates: 0,
    conflicts: 0,
    failedCompactions: 0,
    keyframes: 0,
    newestDay: '2026-01-31',
  }
}

function archiveView() {
  const totals = new ArchiveTotals()
  totals.add(archive(9000, 100, 0), 0)
  totals.add(archive(500, 1_234_000, 42), 1000)
  totals.add(archive(2500, 1_234_467, 42), 3000)
  return {
    status: archive(2500, 1_234_467, 42),
    totals: totals.totals(),
    where: '.tapeline/simulated/archive',
  }
}

test('the display shows the archive, also alone, and adds up its rows over restarts', () => {
  const both = { ...state(), archive: archiveView() }
  const text = displayLines(both, plainStyle).join('\n')
  assert.match(text, /archive: 1,234,567 rows · waiting 42 for 4,200 ms · newest day 2026-01-31/)
  assert.match(plainLine(both), /1,300 trades .* archived 1,234,567 rows/)
  const alone = { ...both, totals: null, consumer: null }
  const lines = displayLines(alone, plainStyle)
  assert.match(
    lines.join('\n'),
    /no database[\s\S]*raw_trades +1,234,567[\s\S]*11\.1 MB in files, 9\.0 bytes a row/,
  )
  assert.doesNotMatch(lines.join('\n'), /trade → row|Kafka lag|dead letter/)
  const end = { dataDir: '.tapeline/simulated', again: 'bin/tapeline up --simulate --archive --no-database' }
  const summary = summaryLines(alone, end, plainStyle)
  assert.match(
    summary.join('\n'),
    /Archived 1,234,567 rows in 11\.1 MB, and 42 rows at the stop:\n +raw_trades +1,234,567/,
  )
  assert.match(
    summary.join('\n'),
    /The archive is in \.tapeline\/simulated\/archive[\s\S]*export ARCHIVE_URL=\.tapeline\/simulated\/archive\n +bin\/tapeline sql --archive/,
  )
  const unopened = { ...archiveView(), totals: new ArchiveTotals().totals() }
  const without = summaryLines({ ...alone, archive: unopened }, end, plainStyle).join('\n')
  assert.match(without, /Archived no rows/)
  assert.doesNotMatch(without, /The archive is in/)
  for (const line of [...lines, ...displayLines(both, plainStyle), ...summary])
    assert.ok(line.length <= 80, `${line.length} columns: ${line}`)
})

test('changes and snapshots of order books have columns beside trades and quotes, within 80 columns', () => {
  const status = consumer(3000, 12_345_678)
  const rows = { ...status.rows, depth: { BTCUSDT: 1_234_567 }, depthSnapshot: { BTCUSDT: 12 } }
  const totals = new RunTotals()
  totals.add({ ...status, rows }, 0)
  const withBooks = { ...state(), totals: totals.totals() }
  const lines = displayLines(withBooks, plainStyle)
  assert.match(lines.join('\n'), / trades +aggTrades +bookTickers +changes +snapshots +rows\/s\n/)
  assert.match(lines.join('\n'), /BTCUSDT +12,345,678 +3 +0 +1,234,567 +12 /)
  assert.match(plainLine(withBooks), / 1,234,567 changes {2}12 snapshots /)
  for (const line of lines) assert.ok(line.length <= 80, `${line.length} columns: ${line}`)
})

test('everything fits into 80 columns and 24 lines, with the newest problem and the end of the run', () => {
  const problem = { time: '12:00:00', from: 'ingest', level: 'warn' as const, text: 'connection refused' }
  const well = { health: 'well' as const, detail: 'http://127.0.0.1:8080' }
  const names = ['exchange', 'ingest', 'kafka', 'consume', 'database', 'archive', 'dashboard']
  const parts = names.map((name) => ({ ...well, name }))
  const problems = ['first', 'second', 'third', 'newest'].map((text) => ({ ...problem, text }))
  const crowded = { ...state(), parts, problems, archive: archiveView(), endsInMs: 86_400_000 }
  const lines = displayLines(crowded, plainStyle)
  assert.ok(lines.length < 24, `${lines.length} lines, and one for the cursor`)
  assert.match(lines.at(-1) ?? '', /newest/)
  const end = { dataDir: '.tapeline/simulated', again: 'bin/tapeline up --simulate --rate 5000 --faults' }
  for (const line of [...lines, ...summaryLines(crowded, end, plainStyle)])
    assert.ok(line.length <= 80, `${line.length} columns: ${line}`)
})

test('rows of a restarted consumer are added to the previous ones', () => {
  const totals = new RunTotals()
  totals.add(consumer(9000, 100), 0)
  totals.add(consumer(500, 7), 1000)
  totals.add(consumer(1500, 10), 2000)
  assert.equal(totals.totals().all.trade, 110)
  assert.equal(totals.totals().deadLettered, 2)
})

test('the block redraws itself in place, also after the terminal became narrower', () => {
  const written: string[] = []
  const canvas = { columns: 20, rows: 10, write: (text: string) => written.push(text) > 0 }
  const block = new LiveBlock(canvas)
  block.draw(['x'.repeat(30), colourStyle.bad('red')])
  assert.match(stripVTControlCharacters(written[0] ?? ''), /^x{20}\nred\n$/)
  canvas.columns = 10
  block.draw(['y'])
  assert.ok(written[1]?.startsWith('\x1b[3A\r'), 'the first line fills two lines of the narrower terminal')
  block.end()
  assert.ok(written[2]?.endsWith('\x1b[?25h'), 'the cursor is visible again')
  assert.equal(clip(colourStyle.bad('abcdef'), 3), '\x1b[31mabc\x1b[0m')
})

test("shows a child's last error with its fix, but not its other output", () => {
  const warn =
    '{"level":40,"msg":"Lost the connection","err":{"message":"refused"},"code":"EXCHANGE","fix":"Wait."}'
  const shown = { text: 'Lost the connection: refused', code: 'EXCHANGE', fix: 'Wait.' }
  assert.deepEqual(parseLogLine(warn), { ...shown, level: 'warn', final: false })
  assert.equal(parseLogLine('{"level":30,"msg":"started"}'), null)
  assert.equal(parseLogLine('binance.trades  created'), null)
  assert.deepEqual(parseLogLine('tapeline: Port 1 is taken')?.final, true)
})

test('does not restart a service that refuses its data, but one that lost Kafka', () => {
  const error = { level: 'error' as const, fix: '' }
  const said = (code: string | null, text: string, final = false) => ({ ...error, text, code, final })
  const ended = { code: 1, signal: null }
  const refusal = [
    said('SOURCE', 'data of another source'),
    said('STOPPED_DIRTY', '5 messages were not stored'),
  ]
  assert.equal(hopelessEnd('consume', ended, refusal, false)?.message, 'consume: data of another source')
  assert.equal(hopelessEnd('consume', ended, [said('KAFKA', 'no broker')], true), null)
  const last = [said(null, 'no such topic', true)]
  assert.equal(hopelessEnd('ingest', ended, last, true)?.message, 'ingest: no such topic')
  assert.equal(hopelessEnd('ingest', ended, last, false), null)
  assert.equal(hopelessEnd('ingest', { code: null, signal: 'SIGKILL' }, [], true), null)
  assert.equal(hopelessEnd('ingest', { code: 2, signal: null }, [], false)?.message, 'ingest: exit code 2')
})

test('refuses a duration without a unit rather than guessing', () => {
  assert.equal(parseDuration('500ms'), 500)
  assert.equal(parseDuration('1.5m'), 90_000)
  for (const text of ['30', '0s', '5 days', '', '-1s']) assert.throws(() => parseDuration(text), /like 500ms/)
})
