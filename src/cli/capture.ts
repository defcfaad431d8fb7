import { rm } from 'node:fs/promises'
import { Command } from 'commander'
import { ExchangeRefusal } from '../foundation/binance/refusal.ts'
import { fetchSymbols, thatTrade } from '../foundation/binance/rest.ts'
import { streamName } from '../foundation/market/event.ts'
import { sleep } from '../foundation/runtime/backoff.ts'
import { systemClock } from '../foundation/runtime/clock.ts'
import { TapelineError } from '../foundation/runtime/errors.ts'
import { onStopSignal } from '../foundation/runtime/signals.ts'
import { loadSettings, type Settings, withOrigin } from '../foundation/settings/load.ts'
import { plural } from '../foundation/telemetry/plural.ts'
import { type CaptureSummary, startCapture } from '../sandbox/capture/capture.ts'
import { LONGEST_MS, parseDuration } from './options.ts'

const HELP = `
Each line of the file is "<receive time in ns since 1970> <frame>". SYMBOLS, STREAM_TYPES and BINANCE_WS_URL select
the streams and the exchange. The command opens separate connections: a running ingestion is not slowed down.

Examples:
  $ bin/tapeline capture btc.ndjson.gz --for 10m
  $ SYMBOLS=BTCUSDT,SOLUSDT STREAM_TYPES=trade bin/tapeline capture trades.ndjson
  $ bin/tapeline replay btc.ndjson.gz`

/** `tapeline capture FILE`: records raw frames with receive times, for `replay`. */
export function captureCommand(): Command {
  return new Command('capture')
    .description('record raw frames with receive times, for replay')
    .argument('<file>', 'the file to write, gzipped when its name ends in .gz')
    .option('--for <duration>', 'stop after this time: 500ms, 30s, 10m, 2h', parseDuration)
    .option('--force', 'replace an existing file', false)
    .addHelpText('after', HELP)
    .action(async (file: string, given: { for?: number; force: boolean }) => {
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      const stopping = new AbortController()
      const stop = stopping.signal
      onStopSignal(() => stopping.abort())
      const { BINANCE_WS_URL: url } = settings
      const symbols = await symbolsOf(settings, stop)
      const streams = symbols.flatMap((symbol) =>
        settings.STREAM_TYPES.map((type) => streamName(symbol, type)),
      )
      const capture = await startCapture({
        file,
        overwrite: given.force,
        wsUrl: url,
        timeUnit: settings.TIME_UNIT,
        streams,
        backoff: { initialMs: settings.BACKOFF_INITIAL_MS, maxMs: settings.BACKOFF_MAX_MS },
        clock: systemClock(),
        onProblem: (what) => process.stderr.write(`${what.replace(/\.$/, '')}. Retrying.\n`),
      })
      const until = given.for === undefined ? 'Ctrl-C ends it' : `for ${given.for / 1_000} s`
      console.log(`Recording ${plural(streams.length, 'stream')} of ${url} to ${file} (${until})`)
      // The end of the time and a signal are both regular ends.
      const ended = sleep(given.for ?? LONGEST_MS, stop).catch(() => undefined)
      const failure = await Promise.race([ended, capture.failed.catch((error: unknown) => error)])
      const summary = await capture.stop().catch((error: unknown) => {
        throw failure ?? error
      })
      if (summary.frames > 0) console.log(sentences(file, summary))
      if (failure !== undefined) throw failure
      if (summary.frames === 0) {
        await rm(file)
        const silent = `No frame arrived from ${withOrigin(settings, 'BINANCE_WS_URL', url)}`
        const named = settings.isSet('BINANCE_WS_URL') ? 'BINANCE_WS_URL, SYMBOLS' : 'SYMBOLS'
        throw new TapelineError('EXCHANGE', `${silent}; nothing was recorded.`, {
          fix: `Check ${named} and the network.`,
        })
      }
    })
}

async function symbolsOf(settings: Settings, signal: AbortSignal): Promise<readonly string[]> {
  if (settings.SYMBOLS.join() !== '*') return settings.SYMBOLS
  try {
    return thatTrade(await fetchSymbols(settings.BINANCE_REST_URL, signal))
  } catch (error) {
    // Report it to the user, since nothing is recorded yet.
    if (error instanceof ExchangeRefusal) throw error.forPerson()
    throw error
  }
}

function sentences(file: string, summary: CaptureSummary): string {
  const { frames, bytes, reconnects, leftOut, firstAt, lastAt, sources, silentStreams } = summary
  const lines = [
    `${plural(frames, 'frame')} in ${file}, ${plural(bytes, 'byte')}, ${plural(reconnects, 'reconnect')}`,
    `from ${firstAt?.toISOString()} to ${lastAt?.toISOString()}, source ${sources.join(' and ')}`,
  ]
  if (leftOut > 0) lines.push(`${plural(leftOut, 'frame')} without JSON not written to the file`)
  if (silentStreams.length > 0) {
    const some = silentStreams.slice(0, 10).join(', ') + (silentStreams.length > 10 ? ', …' : '')
    lines.push(`no frame on ${plural(silentStreams.length, 'stream')}: ${some}`)
  }
  return lines.join('\n')
}
