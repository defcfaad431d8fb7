import { parseJson } from '../runtime/outside-text.ts'
import type { Settings } from '../settings/load.ts'
import type { ConsumerStatus, IngestionStatus } from './status.ts'

const REQUEST_TIMEOUT_MS = 2000

/** Whether a service answers 200 at `GET /`. */
export async function isReady(url: string): Promise<boolean> {
  return (await request(`${url}/`))?.ok === true
}

/** Returns a function that asks a service for its status; null while it does not answer. */
function statusOf<Status extends IngestionStatus | ConsumerStatus>(service: Status['service']) {
  const isOf = (value: unknown): value is Status => Reflect.get(Object(value), 'service') === service
  return async (url: string): Promise<Status | null> => {
    const status = await readJson(`${url}/status`)
    return isOf(status) ? status : null
  }
}

export const ingestionStatus = statusOf<IngestionStatus>('ingestion')
export const consumerStatus = statusOf<ConsumerStatus>('consumer')

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
  port: 'INGEST_PORT' | 'CONSUMER_PORT' | 'DASHBOARD_PORT',
): string {
  const { HTTP_HOST } = settings
  const host = HTTP_HOST === '0.0.0.0' || HTTP_HOST === '::' ? '127.0.0.1' : HTTP_HOST
  return `http://${host.includes(':') ? `[${host}]` : host}:${settings[port]}`
}

/** Returns host and port, without user and password. */
export function databaseHost(url: string): string {
  return URL.parse(url)?.host ?? 'the given database'
}
