import { sleep } from '../../foundation/runtime/backoff.ts'
import type { Settings } from '../../foundation/settings/load.ts'
import {
  archiveStatus,
  consumerStatus,
  databaseHost,
  ingestionStatus,
  isReady,
} from '../../foundation/telemetry/service-status.ts'
import { isCaughtUp, unreadBy } from '../../foundation/telemetry/status.ts'
import { KAFKA_VERSION } from '../kafka-broker/kafka-distribution.ts'
import type { Exit, RunningProcess } from '../processes/child-process.ts'
import { freePort, isPortFree, nextFreePort, requirePort } from '../processes/free-ports.ts'
import type { LogFollower } from '../processes/log-follower.ts'
import { cleanUpLeftOvers, ROLES, type Role, writeEndpoints } from '../processes/process-registry.ts'
import { type Part, Supervisor } from '../processes/supervisor.ts'
import { type ExchangeChoice, simulatedSymbols } from './data-directory.ts'
import { otherExchangeUrl } from './exchange-identity.ts'
import {
  archiveOf,
  type OwnUrls,
  ownUrls,
  portsOf,
  type Stores,
  stackEnvironment,
} from './stack-environment.ts'
import {
  commandPart,
  databasePart,
  exchangePart,
  kafkaPart,
  type PartContext,
  type PartState,
  runCommand,
} from './stack-parts.ts'

const KAFKA_PORT = 9092
/** Port of `simulate` and `replay`, and of the examples in docs/faults.md. */
const FAULTS_PORT = 9443
const PROBE_INTERVAL_MS = 200
const DRAIN_MS = 6000
/** Exit code of a JVM that ended regularly on SIGTERM. */
const JVM_TERMINATED = 143

/** `environment` is the user's; children get it with the values that this stack sets. */
export interface LocalStackOptions extends Omit<PartContext, 'followers'> {
  readonly settings: Settings
  readonly source: ExchangeChoice
  readonly stores: Stores
}

/** The whole pipeline on this machine, except for a broker or database that the settings name. */
export class LocalStack {
  readonly urls: OwnUrls
  /** Where the archive's files are, as for ARCHIVE_URL. */
  readonly archive: string
  readonly #options: LocalStackOptions
  readonly #supervisor: Supervisor
  readonly #environment: NodeJS.ProcessEnv
  readonly #followers: LogFollower[] = []
  readonly #context: PartContext
  readonly #fatal = Promise.withResolvers<Error>()
  readonly #parts = new Map<Role, { state: PartState; where: string }>()
  #starting: Promise<void> = Promise.resolve()

  constructor(options: LocalStackOptions) {
    const { settings, display, directory } = options
    this.#options = options
    this.urls = ownUrls(settings)
    this.archive = archiveOf(settings, directory)
    this.#environment = stackEnvironment(options, this.urls, this.archive)
    this.#context = { ...options, environment: this.#environment, followers: this.#followers }
    this.#supervisor = new Supervisor({
      onRestart: (name, why, delayMs) => {
        this.#setState(name, 'restarting')
        const text = `${why}; restarting in ${(delayMs / 1000).toFixed(1)} s`
        display.problem(name, { level: 'error', text, code: null, fix: '', final: false })
      },
      onRestarted: (name) => this.#setState(name, 'running'),
      onFinished: (name) => {
        this.#setState(name, 'finished')
        display.say(`${name} has finished`)
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

  /** State and address of each part, in the order of the data flow. */
  parts(): Array<{ role: Role; state: PartState; where: string }> {
    const order: Role[] = ['exchange', 'ingest', 'kafka', 'consume', 'database', 'archive', 'dashboard']
    return order.flatMap((role) => {
      const part = this.#parts.get(role)
      return part === undefined ? [] : [{ role, ...part }]
    })
  }

  /**
   * Starts everything in the order that loses nothing: the consumer commits its start positions
   * before the first message is produced. Resolves when ingestion runs, with or without exchange.
   */
  start(): Promise<void> {
    const started = this.#start()
    // The caller gets the error; a stop only waits for the end.
    this.#starting = started.catch(() => {})
    return started
  }

  async #start(): Promise<void> {
    const { settings, source, directory, stores } = this.#options
    for (const name of portsOf(stores)) await requirePort(settings[name], settings.HTTP_HOST, name)
    const commands = [['topics', 'init'], ...(stores.database ? [['migrate']] : [])]
    await this.#allOf([
      this.#startKafka(),
      ...(stores.database ? [this.#startDatabase()] : []),
      this.#startExchange(source),
    ])
    await this.#allOf(
      commands.map((args) => runCommand(this.#context, args[0] ?? '', args, this.#supervisor.stopping)),
    )
    if (stores.database) await this.#startService('consume', () => this.#isConsumerReady())
    // Not until they are ready: the exchange may be unavailable for long, and the archive waits for it.
    await this.#startService('ingest', async () => (await ingestionStatus(this.urls.ingest)) !== null)
    if (stores.archive)
      await this.#startService('archive', async () => (await archiveStatus(this.urls.archive)) !== null)
    await this.#startService('dashboard', () => isReady(this.urls.dashboard))
    writeEndpoints(directory.run, {
      source: directory.source,
      kafkaBrokers: this.#environment['KAFKA_BROKERS'] ?? settings.KAFKA_BROKERS.join(','),
      databaseUrl: this.#environment['DATABASE_URL'] ?? settings.DATABASE_URL,
      ingestUrl: this.urls.ingest,
      consumerUrl: stores.database ? this.urls.consume : '',
      archiveUrl: stores.archive ? this.urls.archive : '',
      archive: stores.archive ? this.archive : '',
    })
  }

  /**
   * Stops input, consumer and archive once Kafka is drained, and the rest. Never rejects.
   * @param onDrained called when it is drained or late, and still answers @returns whether all
   * stopped in order
   */
  async stop(onDrained: () => Promise<void>): Promise<boolean> {
    const { directory, display } = this.#options
    this.#supervisor.beginStop()
    await this.#starting
    let clean = !this.parts().some(({ state }) => state === 'restarting')
    for (const role of ROLES) {
      if (role === 'consume') {
        await this.#drained()
        await onDrained()
      }
      if (this.#supervisor.isRunning(role)) display.progress(role, 'stopping')
      const exit = await this.#supervisor.stop(role)
      if (exit === null) continue
      if (endedWell(exit)) display.ready(role, 'stopped')
      else display.failed(role)
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
    this.#supervisor.killAll()
  }

  async #startKafka(): Promise<void> {
    const { settings, display } = this.#options
    if (settings.isSet('KAFKA_BROKERS')) return this.#external('kafka', settings.KAFKA_BROKERS.join(','))
    const port = await this.#portFrom(
      KAFKA_PORT,
      (other) => `Kafka listens on ${other}. To use the broker on that port, set KAFKA_BROKERS.`,
    )
    const broker = await this.#run('kafka', kafkaPart(this.#context, port), `127.0.0.1:${port}`).catch(
      async (error: unknown) => {
        // Another `up` that started at the same moment has it now.
        if (this.#supervisor.stopping.aborted || (await isPortFree(port))) throw error
        return null
      },
    )
    if (broker === null) return this.#startKafka()
    this.#environment['KAFKA_BROKERS'] = broker.brokers
    display.ready('kafka', `Kafka ${KAFKA_VERSION} on ${broker.brokers}`)
  }

  async #startDatabase(): Promise<void> {
    const { settings, display } = this.#options
    if (settings.isSet('DATABASE_URL')) return this.#external('database', databaseHost(settings.DATABASE_URL))
    const port = await freePort()
    const part = databasePart(this.#context, port)
    const database = await this.#run('database', part, `embedded, 127.0.0.1:${port}`)
    this.#environment['DATABASE_URL'] = database.url
    display.ready('database', `embedded TimescaleDB on 127.0.0.1:${port}`)
  }

  async #startExchange(source: ExchangeChoice): Promise<void> {
    const { settings, display } = this.#options
    if (source.kind === 'binance') {
      const url = otherExchangeUrl(settings)
      return url === null ? undefined : this.#external('exchange', url)
    }
    // A fixed port if the user will request faults.
    const port = await (source.faults === true
      ? this.#portFrom(FAULTS_PORT, (other) => `/faults is on port ${other}.`)
      : freePort())
    const symbols = simulatedSymbols(settings.SYMBOLS)
    this.#environment['BINANCE_WS_URL'] = `ws://127.0.0.1:${port}`
    this.#environment['BINANCE_REST_URL'] = `http://127.0.0.1:${port}`
    const where = `127.0.0.1:${port}${source.faults === true ? ', with /faults' : ''}`
    await this.#run('exchange', exchangePart(this.#context, source, { port, symbols }), where)
    const what = source.kind === 'replay' ? 'the recording' : 'simulated exchange'
    display.ready('exchange', `${what} on ${where}`)
  }

  /** Returns `wanted`, or the next free port above, and says so. */
  async #portFrom(wanted: number, notice: (port: number) => string): Promise<number> {
    const port = await nextFreePort(wanted)
    if (port !== wanted) this.#options.display.say(`Port ${wanted} is taken, so ${notice(port)}`)
    return port
  }

  async #startService(role: keyof OwnUrls, isUp: () => Promise<boolean>): Promise<void> {
    const { display } = this.#options
    display.progress(role, 'starting')
    await this.#run(role, commandPart(this.#context, role, [role]), this.urls[role])
    while (!(await isUp())) await this.#pause()
    display.ready(role, this.urls[role])
  }

  async #isConsumerReady(): Promise<boolean> {
    if (await isReady(this.urls.consume)) return true
    const reason = (await consumerStatus(this.urls.consume))?.reason ?? ''
    this.#options.display.progress('consume', reason === '' ? 'starting' : `waiting: ${reason}`)
    return false
  }

  #external(role: Role, where: string): void {
    this.#parts.set(role, { state: 'external', where })
    this.#options.display.say(`${role}: using ${where} from the settings`)
  }

  async #run<Started extends RunningProcess>(
    role: Role,
    part: Part<Started>,
    where: string,
  ): Promise<Started> {
    try {
      const started = await this.#supervisor.run(part)
      this.#parts.set(role, { state: 'running', where })
      return started
    } catch (error) {
      // A part stopped because of another one's failure has not failed.
      if (!this.#supervisor.stopping.aborted) this.#options.display.failed(role)
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
          this.#supervisor.beginStop()
        }),
      ),
    )
    if (failures.length > 0) throw failures[0]
  }

  /** @throws the error that ends the run, or the abort of a stop */
  async #pause(): Promise<void> {
    await Promise.race([
      sleep(PROBE_INTERVAL_MS, this.#supervisor.stopping),
      this.fatal.then((error) => Promise.reject(error)),
    ])
  }

  /** Waits, up to a limit, until the consumer has stored what is in Kafka, and the archive has read it. */
  async #drained(): Promise<void> {
    const startedMs = performance.now()
    const isStored = async () => {
      const status = await consumerStatus(this.urls.consume)
      return status?.ready !== true || isCaughtUp(status.partitions, performance.now() - startedMs)
    }
    // The archive writes what it has read when it stops.
    const isRead = async () => {
      const status = await archiveStatus(this.urls.archive)
      if (status?.ready !== true) return true
      const { partitions } = status
      return unreadBy(status) === 0 && partitions.every((one) => one.lagAgeMs < performance.now() - startedMs)
    }
    const until = async (role: Role, isDone: () => Promise<boolean>) => {
      while (this.#supervisor.isRunning(role) && performance.now() - startedMs < DRAIN_MS) {
        if (await isDone()) return
        await sleep(PROBE_INTERVAL_MS)
      }
    }
    await Promise.all([until('consume', isStored), until('archive', isRead)])
  }

  #setState(role: Role, state: PartState): void {
    const part = this.#parts.get(role)
    if (part !== undefined) part.state = state
  }
}

function endedWell({ code, signal }: Exit): boolean {
  return code === 0 || code === JVM_TERMINATED || signal === 'SIGTERM'
}
