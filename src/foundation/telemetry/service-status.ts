import { parseJson } from '../runtime/outside-text.ts'
import type { Settings } from '../settings/load.ts'
import { NO_DATABASE } from '../settings/parsers.ts'
import type { ArchiveStatus, ConsumerStatus, IngestionStatus } from './status.ts'

const REQUEST_TIMEOUT_MS = 2000

/** Whether a service answers 200 at `GET /`. */
export async function isReady(url: string): Promise<boolean> {
  return (await request(`${url}/`))?.ok === true
}

export type ServiceStatus = IngestionStatus | ConsumerStatus | ArchiveStatus

/** Returns a function that asks a service for its status; null while it does not answer. */
function statusOf<Status extends ServiceStatus>(service: Status['service']) {
  const isOf = (value: unknown): value is Status => Reflect.get(Object(value), 'service') === service
  return async (url: string): Promise<Status | null> => {
    const status = await readJson(`${url}/status`)
    return isOf(status) ? status : null
  }
}

export const ingestionStatus = statusOf<IngestionStatus>('ingestion')
export const consumerStatus = statusOf<ConsumerStatus>('consumer')
export const archiveStatus = statusOf<ArchiveStatus>('archive')

/** Returns whether the dashboard has something to show; null while it does not answer. */
export async function dashboardStatus(url: string): Promise<{ ready: boolean; reason: string } | null> {
  const snapshot = await readJson(`${url}/snapshot`)
  return Array.isArray(Reflect.get(Object(snapshot), 'parts')) ? { ready: true, reason: '' } : null
}

async function readJson(url: string): Promise<unknown> {
  const answer = await request(url)
  // An answer that is not JSON is of another program, or truncated.
  return answer?.ok === true ? parseJson(answer.body) : null
}

async function request(url: string): Promise<{ ok: boolean; body: string } | null> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) })
    return { ok: response.status === 200, body: await response.text() }
  } catch {
    // Nothing listens there now.
    return null
  }
}

/** Returns the URL of a service on this machine: on loopback if it listens on all addresses. */
export function serviceUrl(
  settings: Settings,
  port: 'INGEST_PORT' | 'CONSUMER_PORT' | 'ARCHIVE_PORT' | 'DASHBOARD_PORT',
): string {
  const { HTTP_HOST } = settings
  const host = HTTP_HOST === '0.0.0.0' || HTTP_HOST === '::' ? '127.0.0.1' : HTTP_HOST
  return `http://${host.includes(':') ? `[${host}]` : host}:${settings[port]}`
}

/** The services that dashboard and status ask; a list is empty where there is no such service. */
export interface ServiceUrls {
  readonly ingestion: readonly string[]
  readonly consumer: readonly string[]
  readonly archive: readonly string[]
}

/** The addresses of a running `up`; a text is empty where there is no such service. */
interface RunningUrls {
  readonly ingestUrl: string
  readonly consumerUrl: string
  readonly archiveUrl: string
}

/** Returns the URLs of the settings; without them those of the running `up`, or of this machine. */
export function serviceUrls(settings: Settings, running: RunningUrls | null): ServiceUrls {
  const isWithout = settings.DATABASE_URL === NO_DATABASE
  const listOf = (own: string | undefined, port: Parameters<typeof serviceUrl>[1]) => {
    const url = own ?? serviceUrl(settings, port)
    return url === '' ? [] : [url]
  }
  return {
    ingestion: settings.INGEST_URLS ?? listOf(running?.ingestUrl, 'INGEST_PORT'),
    consumer: isWithout ? [] : (settings.CONSUMER_URLS ?? listOf(running?.consumerUrl, 'CONSUMER_PORT')),
    archive:
      settings.ARCHIVE_SERVICE_URLS ??
      listOf(running?.archiveUrl ?? (isWithout ? undefined : ''), 'ARCHIVE_PORT'),
  }
}

/** Returns host and port, without user and password. */
export function databaseHost(url: string): string {
  return URL.parse(url)?.host ?? 'the given database'
}
