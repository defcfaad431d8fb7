import { resolve } from 'node:path'
import type { Settings } from '../../foundation/settings/load.ts'
import { NO_DATABASE } from '../../foundation/settings/parsers.ts'
import { serviceUrl } from '../../foundation/telemetry/service-status.ts'
import { displayPath } from '../processes/files.ts'
import type { ExchangeChoice, ExchangeDirectory } from './data-directory.ts'

/** Which stores `up` fills: tables, an archive, or both. */
export interface Stores {
  readonly database: boolean
  readonly archive: boolean
}

/** The addresses of the services, by role. */
export type OwnUrls = Readonly<Record<'ingest' | 'consume' | 'archive' | 'dashboard', string>>

interface StackOptions {
  readonly settings: Settings
  readonly source: ExchangeChoice
  readonly stores: Stores
  /** The user's. */
  readonly environment: NodeJS.ProcessEnv
}

/** Without the exchange, rows should be in files within seconds; the files are few. */
const TRIAL_FLUSH_MS = 10_000

export function ownUrls(settings: Settings): OwnUrls {
  return {
    ingest: serviceUrl(settings, 'INGEST_PORT'),
    consume: serviceUrl(settings, 'CONSUMER_PORT'),
    archive: serviceUrl(settings, 'ARCHIVE_PORT'),
    dashboard: serviceUrl(settings, 'DASHBOARD_PORT'),
  }
}

/** The settings with the ports of the services that run. */
export function portsOf({ database, archive }: Stores) {
  return [
    'INGEST_PORT',
    ...(database ? (['CONSUMER_PORT'] as const) : []),
    ...(archive ? (['ARCHIVE_PORT'] as const) : []),
    'DASHBOARD_PORT',
  ] as const
}

/** Where the archive's files are, as for ARCHIVE_URL: an absolute path, or the URL of a store. */
export function archiveOf(settings: Settings, directory: ExchangeDirectory): string {
  if (!settings.isSet('ARCHIVE_URL')) return directory.archive
  return settings.ARCHIVE_URL.includes('://') ? settings.ARCHIVE_URL : resolve(settings.ARCHIVE_URL)
}

/** The same for people: relative to the current folder where it is below it. */
export function archiveText(archive: string): string {
  return archive.includes('://') ? archive : displayPath(archive)
}

/** The environment of the services: the user's, with the addresses that the stack sets. */
export function stackEnvironment(
  { settings, source, stores, environment }: StackOptions,
  urls: OwnUrls,
  archive: string,
): NodeJS.ProcessEnv {
  const isTrial = source.kind !== 'binance' && !settings.isSet('ARCHIVE_FLUSH_INTERVAL_MS')
  return {
    ...environment,
    INGEST_PORT: String(settings.INGEST_PORT),
    CONSUMER_PORT: String(settings.CONSUMER_PORT),
    ARCHIVE_PORT: String(settings.ARCHIVE_PORT),
    HTTP_HOST: settings.HTTP_HOST,
    DASHBOARD_PORT: String(settings.DASHBOARD_PORT),
    // The addresses of its services, even if the settings name others.
    INGEST_URLS: urls.ingest,
    CONSUMER_URLS: urls.consume,
    ARCHIVE_SERVICE_URLS: stores.archive ? urls.archive : '',
    ARCHIVE_URL: archive,
    ...(isTrial ? { ARCHIVE_FLUSH_INTERVAL_MS: String(TRIAL_FLUSH_MS) } : {}),
    ...(stores.database ? {} : { DATABASE_URL: NO_DATABASE, DATABASE_URL_FILE: '' }),
  }
}
