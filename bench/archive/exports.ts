import { join } from 'node:path'
import { MARKET_DAY, MARKET_SYMBOLS } from '../../test/support/market-messages.ts'
import { startTapeline } from '../../test/support/processes.ts'
import type { Figures } from '../run.ts'
import { Sampler } from '../sampler.ts'
import type { BothStores } from './both-stores.ts'

const LIMIT_MS = 600_000
const MiB = 1 << 20

/** `export` of a day's trades of one symbol from each store, from the command's start to its end. */
export async function exportBoth(
  { databaseUrl, archiveUrl }: BothStores,
  folder: string,
): Promise<Record<string, Figures>> {
  const [symbol = ''] = MARKET_SYMBOLS
  const args = ['export', symbol, '--day', MARKET_DAY, '--type', 'trade', '--no-verify']
  const figures: Record<string, Figures> = {}
  for (const store of ['tables', 'archive'] as const) {
    const which = store === 'archive' ? ['--archive'] : []
    await using command = startTapeline([...args, ...which, '--out', join(folder, store)], {
      env: store === 'archive' ? { ARCHIVE_URL: archiveUrl } : { DATABASE_URL: databaseUrl },
    })
    const startedMs = performance.now()
    const sampler = new Sampler({ export: command.pid })
    await command.assertExit(0, LIMIT_MS)
    const seconds = (performance.now() - startedMs) / 1000
    const { peakBytes = 0 } = sampler.now()['export'] ?? {}
    sampler.stop()
    figures[`export from ${store === 'archive' ? 'the archive' : 'the tables'}`] = {
      seconds,
      MiB: peakBytes / MiB,
    }
  }
  return figures
}
