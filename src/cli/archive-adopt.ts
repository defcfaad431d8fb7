import { randomUUID } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Command } from 'commander'
import { ARCHIVE_TABLES } from '../foundation/archive/tables.ts'
import { rejectOtherExchange, rejectOtherTimeUnit } from '../foundation/kafka/exchange-identity-mark.ts'
import { EVENT_TYPES, isTickType } from '../foundation/market/event.ts'
import { systemClock } from '../foundation/runtime/clock.ts'
import { TapelineError } from '../foundation/runtime/errors.ts'
import { interruptible } from '../foundation/runtime/signals.ts'
import { loadSettings } from '../foundation/settings/load.ts'
import { readIdentity } from '../foundation/store/meta.ts'
import { countText } from '../foundation/telemetry/plural.ts'
import { drawOn } from '../foundation/telemetry/terminal.ts'
import { type Day, parseDay } from '../tools/export/day.ts'
import { storedArchive, withTextReader } from './stored-data.ts'

/** Reading a day of the whole market takes a while. */
const STATEMENT_TIMEOUT_MS = 6 * 3_600_000

const OTHER = 'Set ARCHIVE_URL and DATABASE_URL to the archive and the database of one exchange.'

export function archiveAdoptCommand(): Command {
  return new Command('adopt')
    .description('add the rows of a day from the database to the archive, for days of before the archive')
    .requiredOption('--day <day>', '2026-01-31 or yesterday (UTC); the day must be over')
    .addHelpText(
      'after',
      `\nRows that the archive has already stay as they are; only missing ones are added, and rows of the ledger.
Repeat it if it was interrupted: it adds nothing twice. The archive service may run meanwhile.

Example:
  ARCHIVE_URL=/data/archive DATABASE_URL=postgres://tapeline:secret@db:5432/tapeline bin/tapeline archive adopt --day 2026-01-31`,
    )
    .action(async ({ day }: { day: string }) => {
      const parsed = parseDay('--day', day, Date.now())
      if (parsed.toMs > Date.now())
        throw new TapelineError('INPUT', `--day ${day}: the day is not over`, {
          fix: 'Adopt it tomorrow, or let the archive service publish it.',
        })
      await interruptible((signal) => adopt(parsed, signal))
    })
}

async function adopt(day: Day, signal: AbortSignal): Promise<void> {
  const settings = loadSettings(process.env, { cwd: process.cwd() })
  // Imported here, since the other commands do not need the engine.
  const { withArchive } = await import('../foundation/archive/archive-reader.ts')
  const { adoptDay, adoptLedger } = await import('../archive/adopt.ts')
  const { writeLedger, writeTableRows } = await import('../tools/archive/table-rows.ts')
  const options = { timeoutMs: STATEMENT_TIMEOUT_MS, applicationName: 'tapeline-adopt', signal }
  await withArchive({ ...storedArchive(settings), signal }, ({ store, duckDb, mark }) =>
    withTextReader(settings, options, async (reader) => {
      const stored = await readIdentity(reader.typed)
      if (stored !== null) {
        const files = `The files in ${store.name}`
        rejectOtherExchange(files, mark.source, stored.source, OTHER)
        rejectOtherTimeUnit(files, mark.timeUnit, stored.timeUnit, OTHER)
      }
      await store.prepare()
      const csv = join(settings.ARCHIVE_TEMP ?? store.stagingFolder, `${randomUUID()}.csv`)
      const ports = { store, duckDb, clock: systemClock() }
      try {
        await writeLedger(reader, csv)
        console.log(`gaps: ${countText(await adoptLedger(ports, csv))} rows added`)
        for (const type of EVENT_TYPES) {
          const table = ARCHIVE_TABLES[type]
          await writeTableRows(reader, type, day.bounds, csv, progress(table.name))
          const { rows, added, list } = await adoptDay(ports, table, day.name, csv)
          // Order books are not recorded by default.
          if (rows === 0 && !isTickType(type)) continue
          const result =
            added === 0 ? 'the archive has all of them' : `${countText(added)} added (list ${list})`
          console.log(`${table.name} ${day.name}: ${countText(rows)} rows in the database, ${result}`)
        }
      } finally {
        await rm(csv, { force: true })
      }
    }),
  )
}

/** Shows the progress in place, only on a terminal. */
function progress(table: string): (rows: number) => void {
  if (!process.stderr.isTTY) return () => {}
  let sum = 0
  return (rows) => {
    sum += rows
    drawOn(process.stderr, `\r${table}: ${countText(sum)} rows read\u001b[K\r`)
  }
}
