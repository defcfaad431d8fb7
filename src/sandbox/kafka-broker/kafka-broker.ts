import { randomBytes } from 'node:crypto'
import { addAbortListener } from 'node:events'
import { existsSync } from 'node:fs'
import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join, relative, resolve } from 'node:path'
import { Admin, FindCoordinatorKeyTypes } from '@platformatic/kafka'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import { makeFolder } from '../../foundation/runtime/folders.ts'
import {
  describeExit,
  type Exit,
  type RunningProcess,
  spawnLogged,
  untilReady,
} from '../processes/child-process.ts'
import { displayPath, readJson, rotateLog, writeJson } from '../processes/files.ts'
import { freePort, isPortFree } from '../processes/free-ports.ts'
import { identify, isIdentity, isRunning } from '../processes/process-identity.ts'
import { javaVersion } from './java.ts'
import { KAFKA_VERSION } from './kafka-distribution.ts'
import { kafkaPaths, LOG4J_PROPERTIES, serverProperties } from './kafka-properties.ts'

const READY_TIMEOUT_MS = 60_000
const PROBE_TIMEOUT_MS = 2000
const HEAP_MEBIBYTES = 512
const PROBE_GROUP = 'tapeline-probe'

export interface KafkaBrokerOptions {
  /** Cluster id for a new data directory: 16 bytes in base64url. Default: random. */
  readonly clusterId?: string
  readonly distributionDir: string
  /** All files of the broker: data, configuration, log. Created if missing. */
  readonly dataDir: string
  /** 0 means any free port. */
  readonly port: number
  /** Maximum size of the Java heap. Default: 512 MiB. */
  readonly heapMebibytes?: number
  readonly onProgress?: (text: string) => void
  /** Called as soon as the process exists, long before the broker answers. */
  readonly onSpawned?: (broker: RunningProcess) => void
  /** Broker properties that take precedence over the generated ones. */
  readonly extraProperties?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
}

export interface KafkaBroker extends RunningProcess {
  /** `127.0.0.1:port`, for `KAFKA_BROKERS`. */
  readonly brokers: string
  readonly port: number
}

/**
 * Starts a KRaft broker on loopback and waits until it answers. Reuses a data directory, even after
 * a SIGKILL. It outlives this process unless it is stopped, so the caller must keep its pid.
 * @throws TapelineError `ENVIRONMENT` without Java, or when the port is taken or the broker ends
 */
export async function startKafkaBroker(given: KafkaBrokerOptions): Promise<KafkaBroker> {
  const [dataDir, distributionDir] = [resolve(given.dataDir), resolve(given.distributionDir)]
  const options = { ...given, dataDir, distributionDir }
  const { signal } = options
  const paths = kafkaPaths(dataDir)
  await javaVersion()
  refuseWhileRunning(dataDir)
  const port = options.port === 0 ? await freePort() : options.port
  if (!(await isPortFree(port))) throw portTaken(port)
  const controllerPort = await freePort()
  const propertiesFor = (logDir: string) =>
    serverProperties({
      logDir: relative(dataDir, logDir),
      port,
      controllerPort,
      extra: options.extraProperties ?? {},
    })
  makeFolder(paths.logs)
  rotateLog(paths.log)
  await writeFile(paths.log4j, LOG4J_PROPERTIES)
  await writeFile(paths.properties, propertiesFor(paths.data))

  if (!existsSync(paths.data)) {
    options.onProgress?.('preparing the data directory of Kafka')
    await rm(paths.unformatted, { recursive: true, force: true })
    await writeFile(paths.formatProperties, propertiesFor(paths.unformatted))
    await format(options)
    await rename(paths.unformatted, paths.data)
  }

  signal?.throwIfAborted()
  options.onProgress?.(`starting Kafka ${KAFKA_VERSION}`)
  const broker = await runJava(options, 'kafka.Kafka', [paths.properties])
  options.onSpawned?.(broker)
  writeJson(paths.process, identify(broker.pid))
  const brokers = `127.0.0.1:${port}`
  // Kill it at once instead of after the next probe: this process may be about to exit.
  using _ = signal && addAbortListener(signal, broker.kill)
  try {
    await answering(port, await clusterIdIn(paths.data), broker, options)
  } catch (error) {
    broker.kill()
    await broker.exited
    throw error
  }
  return { ...broker, brokers, port }
}

/** A second broker on the same data would end only after overwriting the log of the first. */
function refuseWhileRunning(dataDir: string): void {
  const broker = readJson(kafkaPaths(dataDir).process)
  if (!isIdentity(broker) || !isRunning(broker)) return
  const inUse = `${displayPath(dataDir)} is in use by a Kafka broker, process ${broker.pid}`
  throw new TapelineError('ENVIRONMENT', inUse, {
    fix: `Stop it (kill ${broker.pid}), or set DATA_DIR to another directory.`,
  })
}

/** Formats a temporary directory, so that an interrupted format is never taken for a complete one. */
async function format(options: KafkaBrokerOptions): Promise<void> {
  const { dataDir, signal } = options
  const clusterId = options.clusterId ?? randomBytes(16).toString('base64url')
  // One argument: an id may begin with a hyphen, which the tool would parse as an option.
  const args = ['format', `--cluster-id=${clusterId}`, '--config', kafkaPaths(dataDir).formatProperties]
  const tool = await runJava(options, 'kafka.tools.StorageTool', args)
  using _ = signal && addAbortListener(signal, tool.kill)
  const exit = await tool.exited
  signal?.throwIfAborted()
  if (exit.code !== 0) throw await brokerEnded('Kafka could not prepare its data directory', exit, dataDir)
}

async function runJava(
  { dataDir, distributionDir, heapMebibytes = HEAP_MEBIBYTES }: KafkaBrokerOptions,
  mainClass: string,
  args: string[],
): Promise<RunningProcess> {
  const { log, log4j } = kafkaPaths(dataDir)
  const jvm = [`-Xmx${heapMebibytes}m`, '-XX:+ExitOnOutOfMemoryError', '-Djava.awt.headless=true']
  const classpath = [`-Dlog4j2.configurationFile=${log4j}`, '-cp', join(distributionDir, 'libs', '*')]
  // Kafka does not allow a comma in the path of its logs, so paths are relative to this directory.
  const options = { logFile: log, cwd: dataDir }
  return (await spawnLogged('java', [...jvm, ...classpath, mainClass, ...args], options)).running
}

/** The id that the formatted data directory carries. */
async function clusterIdIn(logDir: string): Promise<string> {
  const text = await readFile(join(logDir, 'meta.properties'), 'utf8')
  return /^cluster\.id=(.+)$/m.exec(text)?.[1]?.trim() ?? ''
}

/**
 * Waits until the broker answers requests. An open port is not enough, and neither is an answer: a
 * broker that was started at the same time may have taken the port.
 */
async function answering(
  port: number,
  clusterId: string,
  broker: RunningProcess,
  { dataDir, signal }: KafkaBrokerOptions,
): Promise<void> {
  const brokers = `127.0.0.1:${port}`
  const isReady = () => answers(brokers, clusterId)
  const outcome = await untilReady(isReady, broker, { timeoutMs: READY_TIMEOUT_MS, signal })
  if (outcome === null) return
  if (outcome !== 'late' && !(await isPortFree(port))) throw portTaken(port)
  if (outcome !== 'late') throw await brokerEnded('Kafka ended while it started', outcome, dataDir)
  const silent = `Kafka does not answer at ${brokers} within ${READY_TIMEOUT_MS / 1000} s`
  throw new TapelineError('ENVIRONMENT', silent, {
    fix: `See ${displayPath(kafkaPaths(dataDir).log)}; if the machine is short of memory or disk, free some.`,
  })
}

async function answers(brokers: string, clusterId: string): Promise<boolean> {
  const admin = new Admin({
    clientId: 'tapeline-probe',
    bootstrapBrokers: [brokers],
    retries: 0,
    connectTimeout: PROBE_TIMEOUT_MS,
    timeout: PROBE_TIMEOUT_MS,
  })
  try {
    const { id } = await admin.metadata({ topics: [] })
    if (id !== clusterId) return false
    // Makes the broker create the topic of group offsets: until then there is no coordinator.
    await admin.findCoordinator({ keyType: FindCoordinatorKeyTypes.GROUP, keys: [PROBE_GROUP] })
    return true
  } catch {
    // Not ready yet. The caller limits the number of attempts.
    return false
  } finally {
    await admin.close()
  }
}

function portTaken(port: number): TapelineError {
  return new TapelineError('ENVIRONMENT', `Kafka's port ${port} on 127.0.0.1 is taken by another process`, {
    fix: `Stop it (ss -ltnp 'sport = :${port}' shows which), or set KAFKA_BROKERS to that broker.`,
  })
}

async function brokerEnded(what: string, exit: Exit, dataDir: string): Promise<TapelineError> {
  const { log } = kafkaPaths(dataDir)
  const reason = lastMeaningfulLine(await readFile(log, 'utf8'))
  return new TapelineError('ENVIRONMENT', `${what} (${describeExit(exit)}): ${reason}`, {
    fix: `See ${displayPath(log)}. If its data is damaged and not needed, remove ${displayPath(dataDir)}.`,
  })
}

/** The last line of a Java log that is not a stack frame. */
export function lastMeaningfulLine(log: string): string {
  const lines = log.split('\n').map((line) => line.trim())
  const telling = lines.filter((line) => line !== '' && !/^(at |\.\.\. |\[CIRCULAR)/.test(line))
  const error = telling.findLast((line) => /Exception|Error|FATAL|ERROR/.test(line))
  return (error ?? telling.at(-1) ?? 'no output').slice(0, 300)
}
