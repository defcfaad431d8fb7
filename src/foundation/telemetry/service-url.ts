import type { Settings } from '../settings/load.ts'

/** Where a service of this machine answers: on loopback when it listens everywhere. */
export function serviceUrl(
  settings: Settings,
  port: 'INGEST_PORT' | 'CONSUMER_PORT' | 'DASHBOARD_PORT',
): string {
  const { HTTP_HOST } = settings
  const host = HTTP_HOST === '0.0.0.0' || HTTP_HOST === '::' ? '127.0.0.1' : HTTP_HOST
  return `http://${host.includes(':') ? `[${host}]` : host}:${settings[port]}`
}

/** Host and port, without user and password. */
export function databaseHost(url: string): string {
  return URL.parse(url)?.host ?? 'the given database'
}
