import { Command } from 'commander'
import { loadSettings } from '../foundation/settings/load.ts'
import { createLogger } from '../foundation/telemetry/log.ts'
import { readRunningEndpoints } from '../sandbox/processes/process-registry.ts'
import { runService } from './run-service.ts'

const HELP = `
It reads the services at INGEST_URLS, CONSUMER_URLS and ARCHIVE_SERVICE_URLS and the database at DATABASE_URL. Default: those of
the running \`up\`, else INGEST_PORT and CONSUMER_PORT on this machine. With DATABASE_URL=none it shows the archive and no prices.
\`up\` starts a dashboard automatically.

Examples:
  bin/tapeline dashboard
  INGEST_URLS=http://ingest-0:8080,http://ingest-1:8080 CONSUMER_URLS=http://consumer:8081 \\
    DATABASE_URL=postgres://reader:secret@db:5432/tapeline DASHBOARD_PORT=8090 bin/tapeline dashboard`

export function dashboardCommand(): Command {
  return new Command('dashboard')
    .description('run only the dashboard, for services that run elsewhere')
    .addHelpText('after', HELP)
    .action(async () => {
      const settings = loadSettings(process.env, { cwd: process.cwd() })
      const log = createLogger('dashboard', settings.LOG_LEVEL)
      // Imported here, since the other commands do not need the web server.
      const { dashboardConfig } = await import('../tools/dashboard/observer.ts')
      const { startDashboard } = await import('../tools/dashboard/server.ts')
      const running = settings.isSet('DATABASE_URL') ? null : readRunningEndpoints(settings.DATA_DIR)
      const config = dashboardConfig(settings, running)
      await runService(() => startDashboard(config, log), log)
    })
}
