import { openFolderStore } from '../../foundation/archive/folder-store.ts'
import { sleep } from '../../foundation/runtime/backoff.ts'
import { makeFolder } from '../../foundation/runtime/folders.ts'
import { onStopSignal } from '../../foundation/runtime/signals.ts'
import { archiveStatus, consumerStatus, ingestionStatus } from '../../foundation/telemetry/service-status.ts'
import type { ArchiveStatus, ConsumerStatus, IngestionStatus } from '../../foundation/telemetry/status.ts'
import { displayPath } from '../processes/files.ts'
import { lockFolder } from '../processes/folder-lock.ts'
import { cleanUpLeftOvers } from '../processes/process-registry.ts'
import { exchangeDirectory, exchangeName } from './data-directory.ts'
import { Display, type Output } from './display/display.ts'
import {
  type DisplayState,
  type ExchangeView,
  exchangeText,
  type PartView,
  summaryLines,
} from './display/display-lines.ts'
import { ArchiveTotals, RunTotals } from './display/run-totals.ts'
import { otherExchangeUrl } from './exchange-identity.ts'
import { LocalStack, type LocalStackOptions } from './local-stack.ts'
import { archiveText } from './stack-environment.ts'

const STATUS_INTERVAL_MS = 500

export interface UpOptions extends Omit<LocalStackOptions, 'directory' | 'display'> {
  /** Stops automatically this long after everything runs; null: runs until it is stopped. */
  readonly forMs: number | null
  /** The given command, for the hint at the end. */
  readonly command: string
  readonly output: Output
  readonly colours: boolean
}

/**
 * Runs the whole pipeline on this machine until Ctrl-C, SIGTERM, or the end of `forMs`.
 * @returns 0 when everything stopped in order, 1 when something was killed or data undelivered
 * @throws TapelineError when a part cannot be started or kept running; by then all are stopped
 */
export async function runUp(options: UpOptions): Promise<number> {
  const source = await exchangeName(options.source, options.settings)
  const directory = exchangeDirectory(options.settings.DATA_DIR, source)
  const unlock = lockFolder(directory.root)
  makeFolder(directory.logs)
  const display = new Display(options.output, options)
  try {
    return await new Run(options, directory, display).untilStopped()
  } finally {
    display.close()
    unlock()
  }
}

class Run {
  readonly #options: UpOptions
  readonly #directory: ReturnType<typeof exchangeDirectory>
  readonly #display: Display
  readonly #stack: LocalStack
  readonly #source: ExchangeView
  readonly #totals = new RunTotals()
  readonly #archived = new ArchiveTotals()
  readonly #stopWanted = Promise.withResolvers<void>()
  #ingestion: IngestionStatus | null = null
  #consumer: ConsumerStatus | null = null
  #archive: ArchiveStatus | null = null
  #startedMs: number | null = null

  constructor(options: UpOptions, directory: ReturnType<typeof exchangeDirectory>, display: Display) {
    this.#options = options
    this.#directory = directory
    this.#display = display
    const url = options.source.kind === 'binance' ? otherExchangeUrl(options.settings) : null
    this.#source = { name: directory.source, url }
    this.#stack = new LocalStack({ ...options, directory, display })
  }

  async untilStopped(): Promise<number> {
    const stopListening = this.#listenForSignals()
    try {
      await this.#prepareArchive()
      this.#display.say(`tapeline: ${exchangeText(this.#source)}`)
      for (const { role, pid } of await cleanUpLeftOvers(this.#directory.run)) {
        this.#display.say(`Ended ${role} (process ${pid}), left over from a killed run.`)
      }
      const failure = await this.#startAndRun()
      const { clean, summary } = await this.#stop()
      if (failure !== null) throw failure
      this.#display.say(...summary)
      return clean ? 0 : 1
    } finally {
      stopListening()
    }
  }

  /** @throws TapelineError now rather than from the archive, which starts last */
  async #prepareArchive(): Promise<void> {
    const { archive } = this.#stack
    if (this.#options.stores.archive && !archive.includes('://')) await openFolderStore(archive).prepare()
  }

  /** @returns the failure that ended the run, or null */
  async #startAndRun(): Promise<unknown> {
    const ending = Promise.race([this.#stopWanted.promise.then(() => null), this.#stack.fatal])
    try {
      const outcome = await Promise.race([this.#stack.start().then(() => 'started' as const), ending])
      if (outcome !== 'started') return outcome
    } catch (error) {
      return error
    }
    this.#startedMs = performance.now()
    this.#display.showPipeline(() => this.#state())
    const polling = new AbortController()
    const poll = this.#poll(polling.signal)
    const { forMs } = this.#options
    const timer = forMs === null ? null : setTimeout(() => this.#stopWanted.resolve(), forMs)
    const ended = await ending
    if (timer !== null) clearTimeout(timer)
    polling.abort()
    await poll
    return ended
  }

  async #poll(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await this.#ask()
      await sleep(STATUS_INTERVAL_MS, signal).catch(() => {})
    }
  }

  async #ask(): Promise<void> {
    const { stores } = this.#options
    const { ingest, consume, archive } = this.#stack.urls
    const [ingestion, consumer, archiver] = await Promise.all([
      ingestionStatus(ingest),
      stores.database ? consumerStatus(consume) : null,
      stores.archive ? archiveStatus(archive) : null,
    ])
    this.#ingestion = ingestion
    this.#consumer = consumer
    this.#archive = archiver
    if (consumer !== null) this.#totals.add(consumer, performance.now())
    if (archiver !== null) this.#archived.add(archiver, performance.now())
  }

  async #stop(): Promise<{ clean: boolean; summary: string[] }> {
    const summary: string[] = []
    this.#display.showSteps()
    const clean = await this.#stack.stop(async () => {
      if (this.#startedMs === null) return
      await this.#ask()
      const end = { dataDir: displayPath(this.#directory.root), again: this.#options.command }
      summary.push('', ...summaryLines(this.#state(), end, this.#display.style))
    })
    this.#display.close()
    return { clean, summary }
  }

  #state(): DisplayState {
    const { settings, forMs, stores } = this.#options
    const uptimeMs = this.#startedMs === null ? 0 : performance.now() - this.#startedMs
    return {
      source: this.#source,
      uptimeMs,
      endsInMs: forMs === null ? null : Math.max(0, forMs - uptimeMs),
      parts: this.#parts(),
      symbols: settings.SYMBOLS,
      ingestion: this.#ingestion,
      consumer: this.#consumer,
      totals: stores.database ? this.#totals.totals() : null,
      archive: stores.archive
        ? { status: this.#archive, totals: this.#archived.totals(), where: archiveText(this.#stack.archive) }
        : null,
      restarts: this.#stack.restarts,
      problems: this.#display.problems,
    }
  }

  #parts(): PartView[] {
    return this.#stack.parts().map(({ role, state, where }): PartView => {
      if (state === 'restarting') return { name: role, health: 'down', detail: 'ended; restarting' }
      if (state === 'finished') return { name: role, health: 'waiting', detail: 'finished' }
      if (state === 'external') return { name: role, health: 'well', detail: `${where}, from the settings` }
      if (role === 'ingest') return serviceView(role, where, this.#ingestion)
      if (role === 'consume') return serviceView(role, where, this.#consumer)
      if (role === 'archive') return serviceView(role, where, this.#archive)
      return { name: role, health: 'well', detail: where }
    })
  }

  /**
   * The first signal, or a closed output (`up | head`), stops everything in order; the second, like
   * any other exit of this process, at once, since the broker would outlive it.
   */
  #listenForSignals(): () => void {
    const stop = () => this.#stopWanted.resolve()
    const onExit = () => {
      this.#stack.kill()
      this.#display.close()
    }
    const stopListening = onStopSignal(stop, ['SIGINT', 'SIGTERM', 'SIGHUP'])
    this.#options.output.on('error', stop)
    process.on('exit', onExit)
    return () => {
      process.off('exit', onExit)
      stopListening()
    }
  }
}

function serviceView(
  name: string,
  where: string,
  status: { ready: boolean; reason: string } | null,
): PartView {
  if (status === null) return { name, health: 'waiting', detail: 'does not answer' }
  if (status.ready) return { name, health: 'well', detail: where }
  return { name, health: 'waiting', detail: status.reason === '' ? 'starting' : status.reason }
}
