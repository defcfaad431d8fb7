/**
 * Writes every generated document: `scripts/with-node scripts/generate.ts`. `npm run check` and the
 * tests compare them.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { loadMigrations, renderMigrations } from '../src/foundation/store/migrations.ts'
import { commandsPage } from './commands-page.ts'
import { faultsPage } from './faults-page.ts'
import { messageSchemas } from './message-schemas.ts'
import { metricsPage } from './metrics-page.ts'
import { settingsPage } from './settings-page.ts'

const ROOT = resolve(import.meta.dirname, '..')

/** The text of each generated file, by its path in the repository. */
async function generated(): Promise<Record<string, string>> {
  return {
    'docs/commands.md': await commandsPage(),
    'docs/faults.md': faultsPage(),
    'docs/settings.md': settingsPage(),
    'docs/metrics.md': metricsPage(),
    'docker/init-db.sql': renderMigrations(loadMigrations()),
    ...messageSchemas(),
  }
}

/** Returns the generated files that differ from the code they come from. */
export async function staleFiles(): Promise<string[]> {
  return Object.entries(await generated()).flatMap(([file, text]) =>
    readFileSync(join(ROOT, file), 'utf8') === text ? [] : [file],
  )
}

if (import.meta.main) {
  for (const [file, text] of Object.entries(await generated())) {
    mkdirSync(dirname(join(ROOT, file)), { recursive: true })
    writeFileSync(join(ROOT, file), text)
  }
}
