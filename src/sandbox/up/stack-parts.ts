import { addAbortListener, once } from 'node:events'
import { connect } from 'node:net'
import { join } from 'node:path'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import { type EmbeddedDatabase, startEmbeddedDatabase } from '../embedded-timescaledb/embedded-database.ts'
import { type KafkaBroker, startKafkaBroker } from '../kafka-broker/kafka-broker.ts'
import { ensureKafkaDistribution } from '../kafka-broker/kafka-distribution.ts'
import {
  describeExit,
  type Exit,
  type RunningProcess,
  spawnNode,
  untilReady,
} from '../processes/child-process.ts'
import { COMMAND_LINE, displayPath, rotateLog } from '../processes/files.ts'
import { LogFollower, type LogProblem } from '../processes/log-follower.ts'
import { type Role, recordProcess } from '../processes/process-registry.ts'
import type { Part } from '../processes/supervisor.ts'
import type { ExchangeChoice, ExchangeDirectory } from './data-directory.ts'
import type { Display } from './display/display.ts'

const EXCHANGE_READY_MS = 20_000

export type PartState = 'running' | 'restarting' | 'finished' | 'external'

export interface PartContext {
  readonly directory: ExchangeDirectory
  readonly cacheDir: string
  /** The environment of the program's commands. */
  readonly environment: NodeJS.ProcessEnv
  readonly display: Display
  /** Followed logs; closed at the end. */
  readonly followers: LogFollower[]
}

export function kafkaPart(context: PartContext, port: number): Part<KafkaBroker> {
  const { directory, cacheDir, display } = context
  return {
    name: 'kafka',
    async start(signal) {
      const onProgress = (text: string) => display.progress('kafka', text)
      const distributionDir = await ensureKafkaDistribution({ cacheDir, onProgress, signal })
      const { kafka: dataDir, run } = directory
      const onSpawned = (running: RunningProcess) => recordProcess(run, 'kafka', running)
      return startKafkaBroker({ distributionDir, dataDir, port, onProgress, onSpawned, signal })
    },
  }
}

export function databasePart(context: PartContext, port: number): Part<EmbeddedDatabase> {
  const { directory, display } = context
  const { path: logFile } = followedLog(context, 'database')
  return {
    name: 'database',
    async start(signal) {
      display.progress('database', 'starting the embedded TimescaleDB')
      const { database: dataDir, run } = directory
      const onSpawned = (running: RunningProcess) => recordProcess(run, 'database', running)
      return startEmbeddedDatabase({ dataDir, port, logFile, onSpawned, signal })
    },
  }
}

/** The simulated exchange or a replay, on loopback. The end of a recording is not a failure. */
export function exchangePart(
  context: PartContext,
  source: ExchangeChoice,
  { port, symbols }: { readonly port: number; readonly symbols: readonly string[] },
): Part {
  const args = exchangeArguments(source, port, symbols)
  const part = commandPart(context, 'exchange', args)
  return {
    ...part,
    finished: (exit) => source.kind === 'replay' && exit.code === 0,
    async start(signal) {
      context.display.progress('exchange', `starting: ${args.join(' ')}`)
      const running = await part.start(signal)
      const limit = { timeoutMs: EXCHANGE_READY_MS, signal }
      const outcome = await untilReady(() => accepts(port), running, limit).catch((error: unknown) => {
        running.kill()
        throw error
      })
      if (outcome === null) return running
      running.kill()
      const late = `it was not ready within ${EXCHANGE_READY_MS} ms`
      const why = outcome === 'late' ? late : `it ended with ${describeExit(outcome)}`
      throw part.hopeless?.({ code: null, signal: null }) ?? new Error(why)
    },
  }
}

/** A command that runs until it is stopped. Ready once it runs, since it recovers automatically. */
export function commandPart(context: PartContext, role: Role, args: readonly string[]): Part {
  const log = followedLog(context, role)
  let starts = 0
  return {
    name: role,
    async start() {
      starts += 1
      log.forget()
      const running = await spawnCommand(context, args, log.path)
      recordProcess(context.directory.run, role, running)
      return running
    },
    hopeless(exit) {
      log.read()
      return hopelessEnd(role, exit, log.problems, starts === 1)
    },
  }
}

/** Runs a command of this program to its end. @throws TapelineError with its last message */
export async function runCommand(
  context: PartContext,
  name: string,
  args: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const log = followedLog(context, name)
  const running = await spawnCommand(context, args, log.path)
  using _ = addAbortListener(signal, running.kill)
  const exit = await running.exited
  log.close()
  signal.throwIfAborted()
  if (exit.code === 0) return
  const said = log.problems.at(-1)
  const text = said?.text ?? `it ended with ${describeExit(exit)}`
  throw new TapelineError('ENVIRONMENT', `bin/tapeline ${args.join(' ')} failed: ${text}`, {
    fix: said?.fix || `See ${displayPath(log.path)}.`,
  })
}

async function spawnCommand(
  { environment: env }: PartContext,
  args: readonly string[],
  logFile: string,
): Promise<RunningProcess> {
  return (await spawnNode({ script: COMMAND_LINE, args, env, logFile })).running
}

const HOPELESS = new Set<string | null>([
  'SETTINGS',
  'INPUT',
  'SOURCE',
  'SCHEMA',
  'ARCHIVE',
  'EXCHANGE',
  'ENVIRONMENT',
])
const SETTINGS_EXIT_CODE = 2

/** Returns why a restart cannot help; else null. Only an error at the very first start would repeat. */
export function hopelessEnd(
  name: string,
  exit: Exit,
  said: readonly LogProblem[],
  firstStart: boolean,
): TapelineError | null {
  const reason = said.find(({ code, final }) => HOPELESS.has(code) || (firstStart && final))
  if (exit.code !== SETTINGS_EXIT_CODE && reason === undefined) return null
  const shown = reason ?? said.at(-1)
  return new TapelineError('ENVIRONMENT', `${name}: ${shown?.text ?? describeExit(exit)}`, {
    fix: shown?.fix ?? '',
  })
}

function exchangeArguments(source: ExchangeChoice, port: number, symbols: readonly string[]): string[] {
  if (source.kind === 'binance') throw new Error('the live exchange is not started')
  const option = (name: string, value: number | undefined) =>
    value === undefined ? [] : [name, String(value)]
  const own =
    source.kind === 'replay'
      ? ['replay', source.file, ...option('--speed', source.speed)]
      : [
          ...['simulate', '--symbols', symbols.join(',')],
          ...option('--seed', source.seed),
          ...option('--rate', source.rate),
        ]
  return [...own, '--port', String(port), ...(source.faults === true ? ['--faults'] : [])]
}

function followedLog(context: PartContext, name: string): LogFollower {
  const path = join(context.directory.logs, `${name}.log`)
  rotateLog(path)
  const follower = new LogFollower(path, (problem) => context.display.problem(name, problem))
  context.followers.push(follower)
  return follower
}

async function accepts(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  try {
    await once(socket, 'connect')
    return true
  } catch {
    // Nothing listens there yet.
    return false
  } finally {
    socket.destroy()
  }
}
