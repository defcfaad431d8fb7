import type { Clock } from '../foundation/runtime/clock.ts'
import { startHealthServer } from '../foundation/telemetry/health-server.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import { createMetrics } from '../foundation/telemetry/metrics.ts'
import type { RunningService } from '../foundation/telemetry/service.ts'
import type { IngestionConfig } from './config.ts'
import { Ingestion } from './ingestion.ts'
import { INGESTION_METRICS } from './metrics.ts'
import { ports } from './ports.ts'

/**
 * Starts the ingestion service. Its HTTP server answers from the start, with 503 until every
 * connection is open and Kafka acknowledges.
 *
 * @throws TapelineError `ENVIRONMENT` if its port is in use
 */
export async function startIngestion(
  config: IngestionConfig,
  clock: Clock,
  log: Logger,
): Promise<RunningService> {
  const ingestion = new Ingestion(config, ports(config, clock), log)
  const http = await startHealthServer(
    { host: config.host, port: config.port, portSetting: 'INGEST_PORT' },
    {
      readiness: () => ingestion.readiness(),
      whyNotLive: () => ingestion.whyNotLive(),
      status: () => ingestion.status(),
      metrics: createMetrics('ingestion', () => ingestion.metricValues(), INGESTION_METRICS),
    },
  )
  ingestion.start()
  log.info({ url: http.url, exchange: config.wsUrl }, 'Ingestion started')
  return {
    url: http.url,
    ended: ingestion.ended,
    async stop(signal) {
      try {
        await ingestion.stop(signal)
        log.info('Ingestion stopped, 0 messages left')
      } finally {
        await http.close()
      }
    },
  }
}
