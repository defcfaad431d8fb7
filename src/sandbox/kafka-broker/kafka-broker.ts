import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { closeSync, existsSync, openSync } from 'node:fs'
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join, relative, resolve } from 'node:path'
import { Admin, FindCoordinatorKeyTypes } from '@platformatic/kafka'
import { sleep } from '../../foundation/runtime/backoff.ts'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import { describeExit, type Exit, type RunningProcess, runningProcess } from '../processes/child-process.ts'
import { displayPath, readJson, writeJson } from '../processes/files.ts'
import { freePort, isPortFree } from '../processes/free-ports.ts'
import { identify, isIdentity, isRunning } from '../processes/process-identity.ts'
import { requireJava } from './java.ts'
import { KAFKA_VERSION } from './kafka-distribution.ts'
import { kafkaPaths, LOG4J_PROPERTIES, serverProperties } from './kafka-properties.ts'

const READY_TIMEOUT_MS = 60_000
const PROBE_INTERVAL_MS = 100
const PROBE_TIMEOUT_MS = 2000
const HEAP_MEBIBYTES = 512
const PROBE_GROUP = 'tapeline-probe'

export interface KafkaBrokerOptions {
  /** Cluster id for a new data directory: 16 bytes in base64url. Default: random. */
  readonly clusterId?: string
  /** From `ensureKafkaDistribution`. */
  readonly distributionDir: string
  /** All files of the broker: data, configuration, log. Created if missing. */
  readonly dataDir: string
  /** 0 means any free port. */
  readonly port: number
  /** Maximum size of the Java heap. Default: 512 MiB. */
  readonly heapMebibytes?: number
  /** Called with a short description of each step. */
  readonly onProgress?: (text: string) => void
  /** Called with the pid as soon as the process exists, long before the broker answers. */
  readonly onSpawned?: (pid: number) => void
  /** Broker properties that take precedence over the generated ones. */
  readonly extraProperties?: Readonly<Record<string, string>>
  /** Aborts the start; the broker is killed. */
  readonly signal?: AbortSignal
}

export interface KafkaBroker extends RunningProcess {
  /** `127.0.0.1:port`, for `KAFKA_BROKERS`. */
  readonly brokers: string
  readonly port: number
}

/**
 * Starts a KRaft broker on loopback and waits until it answers requests for metadata and for
 * groups. Reuses an existing data directory, even after a SIGKILL.
 *
 * The broker leads a process group and outlives this process unless it is stopped, so the caller
 * must keep its pid.
 *
 * @throws TapelineError `ENVIRONMENT` when Java is missing, the port is taken, or the broker ends
 *   or does not answer
 */
export async function startKafkaBroker(given: KafkaBrokerOptions): Promise<KafkaBroker> {
  const [dataDir, distributionDir] = [resolve(given.dataDir), resolve(given.distributionDir)]
  const options = { ...given, dataDir, distributionDir }
  const { signal } = options
  const paths = kafkaPaths(dataDir)
  await requireJava()
  refuseWhileRunning(dataDir)
  const port = options.port === 0 ? await freePort() : options.port
  if (!(await isPortFree(port))) throw portTaken(port)
  const controllerPort = await freePort()
  const properties = { port, controllerPort, extra: options.extraProperties ?? {} }
  await mkdir(paths.logs, { recursive: true })
  await rename(paths.log, `${paths.log}.1`).catch(ignoreMissing)
  await writeFile(paths.log4j, LOG4J_PROPERTIES)
  await writeFile(
    paths.properties,
    serverProperties({ logDir: relative(dataDir, paths.data), ...properties }),
  )

  if (!existsSync(paths.data)) {
    options.onProgress?.('preparing the data directory of Kafka')
    await rm(paths.unformatted, { recursive: true, force: true })
    await writeFile(
      paths.formatProperties,
      serverProperties({ logDir: relative(dataDir, paths.unformatted), ...properties }),
    )
    await format(options)
    await rename(paths.unformatted, paths.data)
  }

  signal?.throwIfAborted()
  options.onProgress?.(`starting Kafka ${KAFKA_VERSION}`)
  const broker = await runJava(options, 'kafka.Kafka', [paths.properties])
  options.onSpawned?.(broker.pid)
  writeJson(paths.process, identify(broker.pid))
  const brokers = `127.0.0.1:${port}`
  // Kill it at once instead of after the next probe: this process may be about to exit.
  signal?.addEventListener('abort', broker.kill, { once: true })
  try {
    await answering(brokers, broker, options)
  } catch (error) {
    broker.kill()
    await broker.exited
    throw error
  } finally {
    signal?.removeEventListener('abort', broker.kill)
  }
  return { ...broker, brokers, port }
}

/**
 * A second broker on the same data would end, but only after overwriting the log and configuration
 * of the first.
 */
function refuseWhileRunning(dataDir: string): void {
  const broker = readJson(kafkaPaths(dataDir).process)
  if (!isIdentity(broker) || !isRunning(broker)) return
  throw new TapelineError(
    'ENVIRONMENT',
    `${displayPath(dataDir)} is in use by a Kafka broker, process ${broker.pid}`,
    {
      fix: `Stop it (kill ${broker.pid}), or set DATA_DIR to another directory.`,
    },
  )
}

/**
 * Formats a temporary directory, so that an interrupted format is never taken for a complete one.
 */
async function format(options: KafkaBrokerOptions): Promise<void> {
  const { formatProperties } = kafkaPaths(options.dataDir)
  const clusterId = options.clusterId ?? randomBytes(16).toString('base64url')
  // Passed as one argument: one in 64 ids begins with a hyphen, which the tool would parse as an
  // option.
  const args = ['format', `--cluster-id=${clusterId}`, '--config', formatProperties]
  const tool = await runJava(options, 'kafka.tools.StorageTool', args)
  const abort = () => tool.kill()
  options.signal?.addEventListener('abort', abort, { once: true })
  const exit = await tool.exited
  options.signal?.removeEventListener('abort', abort)
  options.signal?.throwIfAborted()
  if (exit.code !== 0)
    throw await brokerEnded('Kafka could not prepare its data directory', exit, options.dataDir)
}

/**
 * Writes output directly to the log file, so that the process does not depend on this one reading
 * it.
 */
async function runJava(
  options: KafkaBrokerOptions,
  mainClass: string,
  args: string[],
): Promise<RunningProcess> {
  const paths = kafkaPaths(options.dataDir)
  const log = openSync(paths.log, 'a')
  try {
    const jvm = [
      `-Xmx${options.heapMebibytes ?? HEAP_MEBIBYTES}m`,
      '-XX:+ExitOnOutOfMemoryError',
      '-Djava.awt.headless=true',
    ]
    const classpath = ['-cp', join(options.distributionDir, 'libs', '*')]
    const child = spawn(
      'java',
      [...jvm, `-Dlog4j2.configurationFile=${paths.log4j}`, ...classpath, mainClass, ...args],
      {
        stdio: ['ignore', log, log],
        detached: true,
        // Kafka does not allow a comma in the path of its logs, so the paths are relative to this
        // directory.
        cwd: options.dataDir,
      },
    )
    return await runningProcess(child)
  } finally {
    closeSync(log)
  }
}

/** Waits until the broker answers requests. An open port is not enough. */
async function answering(
  brokers: string,
  broker: RunningProcess,
  options: KafkaBrokerOptions,
): Promise<void> {
  const { dataDir, signal } = options
  const deadline = performance.now() + READY_TIMEOUT_MS
  let exit: Exit | null = null
  void broker.exited.then((how) => {
    exit = how
  })
  while (!(await answers(brokers))) {
    signal?.throwIfAborted()
    if (exit !== null) throw await brokerEnded('Kafka ended while it started', exit, dataDir)
    if (performance.now() > deadline) {
      throw new TapelineError(
        'ENVIRONMENT',
        `Kafka does not answer at ${brokers} within ${READY_TIMEOUT_MS / 1000} s`,
        {
          fix: `See ${displayPath(kafkaPaths(dataDir).log)}; if the machine is short of memory or disk, free some.`,
        },
      )
    }
    await sleep(PROBE_INTERVAL_MS, signal)
  }
}

async function answers(brokers: string): Promise<boolean> {
  const admin = new Admin({
    clientId: 'tapeline-probe',
    bootstrapBrokers: [brokers],
    retries: 0,
    connectTimeout: PROBE_TIMEOUT_MS,
    timeout: PROBE_TIMEOUT_MS,
  })
  try {
    await admin.metadata({ topics: [] })
    // The first such request makes the broker create the topic of group offsets. Until it exists,
    // consumers get no coordinator.
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

function ignoreMissing(error: unknown): undefined {
  if (Reflect.get(Object(error), 'code') !== 'ENOENT') throw error
}
