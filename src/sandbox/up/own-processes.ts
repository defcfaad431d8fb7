import type { Settings } from '../../foundation/settings/load.ts'
import { serviceUrl } from '../../foundation/telemetry/service-status.ts'
import { type Endpoints, readRunningEndpoints } from '../processes/process-registry.ts'

/** The parts of the running `up`; null if there is none, or the settings name other parts. */
export function ownProcesses(settings: Settings): Endpoints | null {
  const running = readRunningEndpoints(settings.DATA_DIR)
  if (running === null) return null
  const named: ReadonlyArray<readonly [string | null, string]> = [
    [settings.isSet('KAFKA_BROKERS') ? settings.KAFKA_BROKERS.join() : null, running.kafkaBrokers],
    [settings.isSet('DATABASE_URL') ? settings.DATABASE_URL : null, running.databaseUrl],
    [settings.isSet('INGEST_PORT') ? serviceUrl(settings, 'INGEST_PORT') : null, running.ingestUrl],
    [settings.isSet('CONSUMER_PORT') ? serviceUrl(settings, 'CONSUMER_PORT') : null, running.consumerUrl],
    [settings.isSet('ARCHIVE_PORT') ? serviceUrl(settings, 'ARCHIVE_PORT') : null, running.archiveUrl],
  ]
  // A port of a part that does not run here may be set for another start.
  return named.every(([set, own]) => set === null || own === '' || set === own) ? running : null
}
