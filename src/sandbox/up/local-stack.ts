import { sleep } from '../../foundation/runtime/backoff.ts'
import type { Settings } from '../../foundation/settings/load.ts'
import {
  consumerStatus,
  databaseHost,
  ingestionStatus,
  isReady,
  serviceUrl,
} from '../../foundation/telemetry/service-status.ts'
import { isCaughtUp } from '../../foundation/telemetry/status.ts'
import { KAFKA_VERSION } from '../kafka-broker/kafka-distribution.ts'
import type { Exit } from '../processes/child-process.ts'
import { freePort, nextFreePort, requirePort } from '../processes/free-ports.ts'
import type { LogFollower } from '../processes/log-follower.ts'
import {
  cleanUpLeftOvers,
  type Endpoints,
  ROLES,
  type Role,
  writeEndpoints,
} from '../processes/process-registry.ts'
import { type Part, Supervisor } from '../processes/supervisor.ts'
import { type ExchangeChoice, type ExchangeDirectory, simulatedSymbols } from './data-directory.ts'
import { otherExchangeUrl } from './exchange-identity.ts'
import {
  commandPart,
  databasePart,
  exchangePart,
  kafkaPart,
  type PartContext,
  type PartState,
  runCommand,
  type StackReport,
} from './stack-parts.ts'

const KAFKA_PORT = 9092
/** Port of `simulate` and `replay`, and of the examples in docs/faults.md. */
const FAULTS_PORT = 9443
const PROBE_INTERVAL_MS = 200
const DRAIN_MS = 6000
/** Exit code of a JVM that ended regularly on SIGTERM. */
const JVM_TERMINATED = 143

export interface LocalStackOptions {
  readonly settings: Settings
  /** The user's environment. Children get it with the values that this stack sets. */
  readonly environment: NodeJS.ProcessEnv
  readonly source: ExchangeChoice
  readonly directory: ExchangeDirectory
  readonly cacheDir: string
  readonly report: StackReport
}

/**
 * All parts of the pipeline on this machine: broker, database, exchange, consumer, ingestion. It
 * does not start a broker or database that the settings name.
 */
export class LocalStack {
  readonly #options: LocalStackOptions
  readonly #supervisor: Supervisor
  readonly #environment: NodeJS.ProcessEnv
  readonly #followers: LogFollower[] = []
  readonly #context: PartContext
  readonly #stopping = new AbortController()
  readonly #fatal = Promise.withResolvers<Error>()
  readonly #states = new Map<Role, PartState>()
  readonly #where = new Map<Role, string>()
  #starting: Promise<void> = Promise.resolve()

  constructor(options: LocalStackOptions) {
    const { settings, report } = options
    this.#options = options
    this.#environment = {
      ...options.environment,
      INGEST_PORT: String(settings.INGEST_PORT),
      CONSUMER_PORT: String(settings.CONSUMER_PORT),
      HTTP_HOST: settings.HTTP_HOST,
      DASHBOARD_PORT: String(settings.DASHBOARD_PORT),
      // The addresses of its services, even if the settings name others.
      INGEST_URLS: serviceUrl(settings, 'INGEST_PORT'),
      CONSUMER_URLS: serviceUrl(settings, 'CONSUMER_PORT'),
    }
    this.#context = {
      directory: options.directory,
      cacheDir: options.cacheDir,
      environment: this.#environment,
      onProgress: (role, text) => report.progress(role, text),
      onProblem: (role, problem) => report.problem(role, problem),
      followers: this.#followers,
    }
    this.#supervisor = new Supervisor({
      onRestart: ({ name, why, delayMs }) => {
        this.#setState(name, 'restarting')
        const text = `${why}; restarting in ${(delayMs / 1000).toFixed(1)} s`
        report.problem(name, { level: 'error', text, code: null, fix: '', final: false })
      },
      onRestarted: ({ name }) => this.#setState(name, 'running'),
      onFinished: ({ name }) => {
        this.#setState(name, 'finished')
        report.say(`${name} has finished`)
      },
      onFatal: (error) => this.#fatal.resolve(error),
    })
  }

  /** Resolves with the reason when a part cannot be kept running. */
  get fatal(): Promise<Error> {
    return this.#fatal.promise
  }

  get restarts(): number {
    return this.#supervisor.restarts
  }

  get ingestUrl(): string {
    return serviceUrl(this.#options.settings, 'INGEST_PORT')
  }

  get consumerUrl(): string {
    return serviceUrl(this.#options.settings, 'CONSUMER_PORT')
  }

  get dashboardUrl(): string {
    return serviceUrl(this.#options.settings, 'DASHBOARD_PORT')
  }

  /** State and address of each part, in the order of the data flow. */
  parts(): Array<{ role: Role; state: PartState; where: string }> {
    const order: Role[] = ['exchange', 'ingest', 'kafka', 'consume', 'database', 'dashboard']
    return order.flatMap((role) => {
      const state = this.#states.get(role)
      return state === undefined ? [] : [{ role, state, where: this.#where.get(role) ?? '' }]
    })
  }

  /**
   * Starts everything in the order that loses nothing: the consumer commits its start positions
   * before the first message is produced. Resolves when ingestion runs, with or without exchange.
   */
  start(): Promise<void> {
    const started = this.#start()
    this.#starting = started.catch(() => {
      // The caller gets the error; a stop only waits for the end.
    })
    return started
  }

  async #start(): Promise<void> {
    const { settings, source, directory } = this.#options
    await requirePort(settings.INGEST_PORT, settings.HTTP_HOST, 'INGEST_PORT')
    await requirePort(settings.CONSUMER_PORT, settings.HTTP_HOST, 'CONSUMER_PORT')
    await requirePort(settings.DASHBOARD_PORT, settings.HTTP_HOST, 'DASHBOARD_PORT')
    await this.#allOf([this.#startKafka(), this.#startDatabase(), this.#startExchange(source)])
    await this.#allOf([
      runCommand(this.#context, 'topics', ['topics', 'init'], this.#stopping.signal),
      runCommand(this.#context, 'migrate', ['migrate'], this.#stopping.signal),
    ])
    await this.#run('consume', commandPart(this.#context, 'consume', ['consume']), this.consumerUrl)
    await this.#untilConsumerReady()
    this.#options.report.progress('ingest', 'starting')
    await this.#run('ingest', commandPart(this.#context, 'ingest', ['ingest']), this.ingestUrl)
    await this.#untilIngestionAnswers()
    this.#options.report.progress('dashboard', 'starting')
    await this.#run('dashboard', commandPart(this.#context, 'dashboard', ['dashboard']), this.dashboardUrl)
    while (!(await isReady(this.dashboardUrl))) await this.#pause()
    this.#options.report.ready('dashboard', this.dashboardUrl)
    writeEndpoints(directory.run, this.#endpoints())
  }

  /**
   * Stops everything in order: input, consumer once Kafka is drained, the rest. Never rejects.
   *
   * @param onDrained called when the consumer is drained or the time is up, while it still answers
   * @returns whether each part stopped regularly and in order
   */
  async stop(onDrained: () => Promise<void>): Promise<boolean> {
    const { directory, report } = this.#options
    this.#stopping.abort(new Error('stopping'))
    this.#supervisor.beginStop()
    await this.#starting
    let clean = ![...this.#states.values()].includes('restarting')
    for (const role of ROLES) {
      if (role === 'consume') {
        await this.#drained()
        await onDrained()
      }
      if (this.#supervisor.isRunning(role)) report.progress(role, 'stopping')
      const exit = await this.#supervisor.stop(role)
      if (exit === null) continue
      if (endedWell(exit)) report.ready(role, 'stopped')
      else report.failed(role)
      clean &&= endedWell(exit)
    }
    await this.#supervisor.stopRest()
    for (const follower of this.#followers) follower.close()
    // Nothing is left now, unless a part was killed while it started.
    await cleanUpLeftOvers(directory.run)
    return clean
  }

  /** Kills everything at once, including starting parts. Synchronous, so usable at process exit. */
  kill(): void {
    this.#stopping.abort(new Error('stopping'))
    this.#supervisor.killAll()
  }

  async #startKafka(): Promise<void> {
    const { settings, report } = this.#options
    if (settings.isSet('KAFKA_BROKERS')) return this.#external('kafka', settings.KAFKA_BROKERS.join(','))
    const port = await nextFreePort(KAFKA_PORT)
    if (port !== KAFKA_PORT) {
      report.say(
        `Port ${KAFKA_PORT} is taken, so Kafka listens on ${port}. To use the broker on that port, set KAFKA_BROKERS.`,
      )
    }
    const broker = await this.#run('kafka', kafkaPart(this.#context, port), `127.0.0.1:${port}`)
    this.#environment['KAFKA_BROKERS'] = broker.brokers
    report.ready('kafka', `Kafka ${KAFKA_VERSION} on ${broker.brokers}`)
  }

  async #startDatabase(): Promise<void> {
    const { settings, report } = this.#options
    if (settings.isSet('DATABASE_URL')) return this.#external('database', databaseHost(settings.DATABASE_URL))
    const port = await freePort()
    const part = databasePart(this.#context, port)
    const database = await this.#run('database', part, `embedded, 127.0.0.1:${port}`)
    this.#environment['DATABASE_URL'] = database.url
    report.ready('database', `embedded TimescaleDB on 127.0.0.1:${port}`)
  }

  async #startExchange(source: ExchangeChoice): Promise<void> {
    const { settings, report } = this.#options
    if (source.kind === 'binance') {
      const url = otherExchangeUrl(settings)
      return url === null ? undefined : this.#external('exchange', url)
    }
    const port = await this.#exchangePort(source.faults === true)
    const symbols = simulatedSymbols(settings.SYMBOLS)
    this.#environment['BINANCE_WS_URL'] = `ws://127.0.0.1:${port}`
    this.#environment['BINANCE_REST_URL'] = `http://127.0.0.1:${port}`
    const where = `127.0.0.1:${port}${source.faults === true ? ', with /faults' : ''}`
    await this.#run('exchange', exchangePart(this.#context, source, { port, symbols }), where)
    const what = source.kind === 'replay' ? 'the recording' : 'simulated exchange'
    report.ready('exchange', `${what} on ${where}`)
  }

  /** A fixed port if the user will request faults; otherwise any. */
  async #exchangePort(faults: boolean): Promise<number> {
    if (!faults) return freePort()
    const port = await nextFreePort(FAULTS_PORT)
    if (port !== FAULTS_PORT)
      this.#options.report.say(`Port ${FAULTS_PORT} is taken, so /faults is on port ${port}.`)
    return port
  }

  #external(role: Role, where: string): void {
    this.#states.set(role, 'external')
    this.#where.set(role, where)
    this.#options.report.say(`${role}: using ${where} from the settings`)
  }

  async #run<Started extends Awaited<ReturnType<Part['start']>>>(
    role: Role,
    part: Part<Started>,
    where: string,
  ): Promise<Started> {
    this.#where.set(role, where)
    try {
      const started = await this.#supervisor.run(part)
      this.#states.set(role, 'running')
      return started
    } catch (error) {
      // A part stopped because of another one's failure has not failed.
      if (!this.#stopping.signal.aborted) this.#options.report.failed(role)
      throw error
    }
  }

  /** Waits for all. After a failure it stops the others, and rejects once they have ended. */
  async #allOf(starts: ReadonlyArray<Promise<void>>): Promise<void> {
    const failures: unknown[] = []
    await Promise.all(
      starts.map((start) =>
        start.catch((error: unknown) => {
          failures.push(error)
          this.#stopping.abort(new Error('stopping'))
          this.#supervisor.beginStop()
        }),
      ),
    )
    if (failures.length > 0) throw failures[0]
  }

  async #untilConsumerReady(): Promise<void> {
    const { report } = this.#options
    report.progress('consume', 'starting')
    while (!(await isReady(this.consumerUrl))) {
      const reason = (await consumerStatus(this.consumerUrl))?.reason ?? ''
      report.progress('consume', reason === '' ? 'starting' : `waiting: ${reason}`)
      await this.#pause()
    }
    report.ready('consume', this.consumerUrl)
  }

  /** Waits until it answers, but not for the exchange, which may be unavailable for long. */
  async #untilIngestionAnswers(): Promise<void> {
    while ((await ingestionStatus(this.ingestUrl)) === null) await this.#pause()
    this.#options.report.ready('ingest', this.ingestUrl)
  }

  /** @throws the error that ends the run, or the abort of a stop */
  async #pause(): Promise<void> {
    await Promise.race([
      sleep(PROBE_INTERVAL_MS, this.#stopping.signal),
      this.fatal.then((error) => Promise.reject(error)),
    ])
  }

  /** Waits, up to a limit, until the consumer has stored what is in Kafka. */
  async #drained(): Promise<void> {
    const startedMs = performance.now()
    while (this.#supervisor.isRunning('consume') && performance.now() - startedMs < DRAIN_MS) {
      const status = await consumerStatus(this.consumerUrl)
      if (status?.ready !== true) return
      if (isCaughtUp(status.partitions, performance.now() - startedMs)) return
      await sleep(PROBE_INTERVAL_MS)
    }
  }

  #endpoints(): Endpoints {
    const { settings, directory } = this.#options
    return {
      source: directory.source,
      kafkaBrokers: this.#environment['KAFKA_BROKERS'] ?? settings.KAFKA_BROKERS.join(','),
      databaseUrl: this.#environment['DATABASE_URL'] ?? settings.DATABASE_URL,
      ingestUrl: this.ingestUrl,
      consumerUrl: this.consumerUrl,
      dashboardUrl: this.dashboardUrl,
    }
  }

  #setState(name: string, state: PartState): void {
    const role = ROLES.find((one) => one === name)
    if (role !== undefined) this.#states.set(role, state)
  }
}

function endedWell({ code, signal }: Exit): boolean {
  return code === 0 || code === JVM_TERMINATED || signal === 'SIGTERM'
}
