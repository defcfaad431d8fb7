import { systemClock } from '../../foundation/runtime/clock.ts'
import { openPostgres } from '../../foundation/store/postgres.ts'
import type { Logger } from '../../foundation/telemetry/log.ts'
import type { RunningService } from '../../foundation/telemetry/service.ts'
import { type DashboardConfig, Observer } from './observer.ts'
import { dashboardServer, listen } from './server.ts'
import { readSeries } from './stored.ts'

/** A page is shown without the data of slower queries. */
const QUERY_TIMEOUT_MS = 5000

/** @throws TapelineError `ENVIRONMENT` when the port is taken */
export async function startDashboard(config: DashboardConfig, log: Logger): Promise<RunningService> {
  const database = openPostgres({
    url: config.databaseUrl,
    poolMin: 0,
    poolMax: 1,
    queryTimeoutMs: QUERY_TIMEOUT_MS,
    applicationName: 'tapeline-dashboard',
  })
  const observer = new Observer(config, database, systemClock(), (error) =>
    log.error({ err: error }, "This version of the dashboard cannot show a service's answer"),
  )
  const server = dashboardServer({ observer, series: (symbol) => readSeries(database, symbol) })
  const url = await listen(server, config.host, config.port)
  observer.start()
  log.info({ url }, `The dashboard is at ${url}`)
  return {
    url,
    ended: new Promise(() => {}),
    async stop() {
      await observer.stop()
      await server.close()
      await database.close()
    },
  }
}
