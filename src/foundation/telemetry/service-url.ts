import type { Settings } from '../settings/load.ts'

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
