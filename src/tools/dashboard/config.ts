import type { Settings } from '../../foundation/settings/load.ts'
import { serviceUrl } from '../../foundation/telemetry/service-url.ts'

export interface DashboardConfig {
  readonly host: string
  readonly port: number
  readonly ingestUrls: readonly string[]
  readonly consumerUrls: readonly string[]
  readonly databaseUrl: string
  /** Shown first, in this order. Symbols that only the services know follow. */
  readonly symbols: readonly string[]
}

/** @param databaseUrl replaces the configured URL: that of a running `up` */
export function dashboardConfig(settings: Settings, databaseUrl = settings.DATABASE_URL): DashboardConfig {
  return {
    host: settings.HTTP_HOST,
    port: settings.DASHBOARD_PORT,
    ingestUrls: settings.INGEST_URLS ?? [serviceUrl(settings, 'INGEST_PORT')],
    consumerUrls: settings.CONSUMER_URLS ?? [serviceUrl(settings, 'CONSUMER_PORT')],
    databaseUrl,
    symbols: settings.SYMBOLS.filter((symbol) => symbol !== '*'),
  }
}
