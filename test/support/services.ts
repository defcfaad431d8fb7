import assert from 'node:assert/strict'
import { isFields } from '../../src/foundation/market/payload.ts'
import {
  type ArchiveStatus,
  type ConsumerStatus,
  type IngestionStatus,
  isCaughtUp,
} from '../../src/foundation/telemetry/status.ts'
import { freePort } from '../../src/sandbox/processes/free-ports.ts'
import { type RunningCommand, startTapeline } from './processes.ts'
import { until } from './wait-for.ts'

export type ConsumerProcess = Awaited<ReturnType<typeof startConsumerProcess>>
export type IngestionProcess = Awaited<ReturnType<typeof startIngestionProcess>>

export function startConsumerProcess(env: Readonly<Record<string, string>>) {
  return startService<ConsumerStatus>('consume', 'CONSUMER_PORT', env)
}

export type ArchiveProcess = Awaited<ReturnType<typeof startArchiveProcess>>

export function startArchiveProcess(env: Readonly<Record<string, string>>) {
  return startService<ArchiveStatus>('archive', 'ARCHIVE_PORT', env)
}

export function startIngestionProcess(env: Readonly<Record<string, string>>) {
  return startService<IngestionStatus>('ingest', 'INGEST_PORT', env)
}

/** Waits until everything is stored that was in Kafka at the call. */
export async function untilCaughtUp(
  consumer: Pick<ConsumerProcess, 'status'>,
  timeoutMs = 60_000,
): Promise<void> {
  const sinceMs = performance.now()
  await until(
    'the consumer to have stored everything',
    async () => {
      const { partitions } = await consumer.status()
      return partitions.length > 0 && isCaughtUp(partitions, performance.now() - sinceMs)
    },
    timeoutMs,
  )
}

/** Waits until it has acknowledged this many messages since its start. */
export async function untilAcknowledged(ingestion: IngestionProcess, messages: number): Promise<void> {
  await ingestion.until(`${messages} messages`, ({ counters }) => counters.acknowledged >= messages)
}

export async function untilGapsClosed(ingestion: IngestionProcess): Promise<void> {
  await ingestion.until('every gap to be closed', ({ openGaps }) => openGaps.length === 0)
}

/** Fails unless every frame is in exactly one of the counters. */
export function assertFramesCounted({ counters }: IngestionStatus): void {
  const { received, forwarded, duplicate, control, ignored, rejected, held } = counters
  assert.equal(received, forwarded + duplicate + control + ignored + rejected + held)
}

/** Requests `/status`; the result has the service's status type. */
export async function fetchStatus<Status>(url: string): Promise<Status> {
  const response = await fetch(`${url}/status`, { signal: AbortSignal.timeout(5000) })
  const status: unknown = await response.json()
  if (!isFields(status)) throw new Error(`${url}/status answered ${JSON.stringify(status)}`)
  return status as Status
}

const running = new Set<RunningCommand>()

/** The output of the services that this test has not ended yet, for the error of a failed wait. */
export function saidByServices(): string {
  return [...running].map((command) => command.output()).join('\n')
}

/** A service in a separate process, with its HTTP interface on a free port. */
async function startService<Status>(
  name: 'consume' | 'ingest' | 'archive',
  portSetting: string,
  env: Readonly<Record<string, string>>,
) {
  const port = await freePort()
  const command = startTapeline([name], { env: { ...env, [portSetting]: String(port) } })
  const url = `http://127.0.0.1:${port}`
  running.add(command)
  const status = () => fetchStatus<Status>(url)
  return {
    command,
    url,
    status,
    /** Waits until its status is so. @returns that status */
    until(what: string, isSo: (status: Status) => boolean, timeoutMs = 60_000): Promise<Status> {
      let seen: Status | null = null
      const now = async () => {
        if (command.hasExited()) return 'exited'
        seen = await status()
        return isSo(seen) ? seen : null
      }
      const fail = (why: string, cause?: unknown) => {
        const shown = `Its last status:\n${JSON.stringify(seen)}\nIts output:\n${command.output()}`
        return new Error(`${name} did not reach: ${what}: ${why}. ${shown}`, { cause })
      }
      return until(what, now, timeoutMs).then(
        (reached) => {
          if (reached === 'exited') throw fail('it exited')
          return reached
        },
        (cause: unknown) => {
          throw fail(`not within ${timeoutMs} ms`, cause)
        },
      )
    },
    /** Waits until `GET /` answers 200. */
    async ready(timeoutMs = 60_000) {
      await until(
        `${name} to be ready; its output:\n${command.output()}`,
        async () => (await fetch(url, { signal: AbortSignal.timeout(2000) })).ok,
        timeoutMs,
      )
    },
    /** Sends SIGTERM, and fails unless it exits with 0. */
    async stop() {
      command.signal('SIGTERM')
      await command.assertExit(0)
    },
    async [Symbol.asyncDispose]() {
      await command.kill()
      running.delete(command)
    },
  }
}
