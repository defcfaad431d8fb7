import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, readFileSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { TapelineError } from '../src/foundation/runtime/errors.ts'
import { CACHE_DIRECTORY } from '../test/support/bounded-run.ts'
import type { Measured, Pipeline } from './pipeline.ts'
import { type Place, withDatabase } from './place.ts'

const PARTITIONS = 3
const STOP_LIMIT_MS = 30_000
/** The first run downloads packages. */
const INSTALL_LIMIT_MS = 300_000

/** Files that a peer's folder must contain. */
const FILES = ['ingest.py', 'sink.py', 'schema.sql', 'requirements.txt'] as const

/** A pipeline of Python programs in a folder, ready to start. */
export interface Peer {
  readonly folder: string
  readonly python: string
}

/**
 * Creates the peer's Python environment in the cache, once for each version of its requirements.
 *
 * @throws TapelineError `INPUT` if the folder is no peer, `ENVIRONMENT` if Python cannot create the
 * environment
 */
export async function preparePeer(folder: string, say: (text: string) => void): Promise<Peer> {
  for (const file of FILES) {
    if (!existsSync(join(folder, file)))
      throw new TapelineError('INPUT', `${join(folder, file)} is missing`, {
        fix: `--peer expects a folder with ${FILES.join(', ')}; docs/bench.md describes them.`,
      })
  }
  const requirements = join(folder, 'requirements.txt')
  const digest = createHash('sha256').update(readFileSync(requirements)).digest('hex').slice(0, 12)
  const venv = join(CACHE_DIRECTORY, `peer-${digest}`)
  if (!existsSync(venv)) {
    say('creating the Python environment of the peer')
    const making = `${venv}.${process.pid}`
    await run('python3', ['-m', 'venv', making])
    await run(join(making, 'bin/python'), ['-m', 'pip', 'install', '-q', '-r', requirements])
    renameSync(making, venv)
  }
  return { folder, python: join(venv, 'bin/python') }
}

/** Sets up the peer's programs with new topics and an empty database. */
export async function layPeer(place: Place, peer: Peer, symbols: readonly string[]): Promise<Pipeline> {
  const prefix = `peer-${randomBytes(4).toString('hex')}`
  const [trades, bookTicker] = [`${prefix}.trades`, `${prefix}.book_ticker`] as const
  await place.admin.createTopics({
    topics: [trades, bookTicker].map((topic) => ({ topic, partitions: PARTITIONS, replicas: 1 })),
  })
  const env = {
    KAFKA_BROKERS: place.brokers,
    TRADES_TOPIC: trades,
    BOOK_TICKER_TOPIC: bookTicker,
    WS_URL: place.feeder.wsUrl,
    SYMBOLS: symbols.join().toLowerCase(),
    OFFSET_RESET: 'earliest',
  }
  return layConsumer(place, peer, [trades, bookTicker], prefix, env)
}

async function layConsumer(
  place: Place,
  peer: Peer,
  topics: Pipeline['topics'],
  prefix: string,
  shared: Readonly<Record<string, string>>,
): Promise<Pipeline> {
  const database = await place.createDatabase()
  await withDatabase(database.url, async (connection) => {
    await connection.query('CREATE EXTENSION IF NOT EXISTS timescaledb')
    for (const statement of readFileSync(join(peer.folder, 'schema.sql'), 'utf8').split(';'))
      if (statement.trim() !== '') await connection.query(statement)
  })
  const group = `peer-${randomBytes(4).toString('hex')}`
  const env = { ...shared, DATABASE_URL: database.url, GROUP_ID: group }
  return {
    databaseUrl: database.url,
    topics,
    partitions: PARTITIONS,
    group,
    tables: { timed: 'peer_trades', untimed: 'peer_book_ticker' },
    startIngestion: async () => start(peer, 'ingest.py', env),
    startConsumer: async (settings = {}) =>
      start(peer, 'sink.py', {
        ...env,
        ...(settings['FLUSH_INTERVAL_MS'] === undefined
          ? {}
          : { FLUSH_INTERVAL_S: String(Number(settings['FLUSH_INTERVAL_MS']) / 1000) }),
      }),
    async again() {
      const other = await layConsumer(place, peer, topics, prefix, shared)
      // The first one deletes the topics.
      return { ...other, remove: other.removeDatabase }
    },
    removeDatabase: database.drop,
    async remove() {
      await database.drop()
      await place.deleteTopics(prefix)
    },
  }
}

function start(peer: Peer, script: string, env: Readonly<Record<string, string>>): Measured {
  const { PATH, HOME, TAPELINE_TEST_RUN } = process.env
  const child = spawn(peer.python, [join(peer.folder, script)], {
    env: { PATH, HOME, TAPELINE_TEST_RUN, PYTHONDONTWRITEBYTECODE: '1', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  if (child.pid === undefined) throw new Error(`${peer.python} cannot be started`)
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text
    })
  const ended = new Promise<void>((done) => child.once('close', () => done()))
  return {
    pid: child.pid,
    url: null,
    output: () => output,
    async stop() {
      child.kill('SIGTERM')
      const limit = setTimeout(() => child.kill('SIGKILL'), STOP_LIMIT_MS)
      await ended
      clearTimeout(limit)
    },
  }
}

async function run(program: string, args: readonly string[]): Promise<void> {
  const child = spawn(program, [...args], { stdio: ['ignore', 'ignore', 'pipe'], timeout: INSTALL_LIMIT_MS })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  const code = await new Promise<number | null>((done, reject) => {
    child.once('error', reject)
    child.once('close', done)
  })
  if (code === 0) return
  throw new TapelineError(
    'ENVIRONMENT',
    `${program} ${args.join(' ')} exited with code ${code}: ${said.trim().slice(-500)}`,
    {
      fix: 'Install Python 3 with venv. The first run needs access to the Python package index.',
    },
  )
}
