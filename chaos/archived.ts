import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { finished } from 'node:stream/promises'
import { z } from 'zod'
import { CommitChain, chainsOf } from '../src/foundation/archive/commit-chain.ts'
import { openFolderStore } from '../src/foundation/archive/folder-store.ts'
import { ARCHIVE_TABLES, type ArchiveColumn, storedRows } from '../src/foundation/archive/tables.ts'
import { EVENT_TYPES, type EventType } from '../src/foundation/market/event.ts'
import { TextReader } from '../src/foundation/store/text-reader.ts'
import { installedReaders } from '../test/support/python-readers.ts'

/** Result of the comparison of the archive with the tables. */
export interface ArchiveCheck {
  /** Rows of the tables that were compared. */
  readonly rows: Readonly<Record<string, number>>
  readonly segments: number
  readonly readers: readonly string[]
  /** Why nothing was compared; null if it was. */
  readonly skipped: string | null
  readonly violations: readonly string[]
}

const READERS = join(import.meta.dirname, 'archive_readers.py')
const QUERY_LIMIT_MS = 30 * 60_000
const ROWS_AT_ONCE = 20_000

const ANSWER = z.record(
  z.string(),
  z.record(z.string(), z.object({ rows: z.int(), differences: z.array(z.string()) })),
)

/**
 * Compares every row of the archive with the tables, value by value, by three independent readers; of order
 * books each level. A message that Kafka has twice is in two segments; the first counts, as for the tables.
 */
export async function checkArchive(folder: string, databaseUrl: string): Promise<ArchiveCheck> {
  const store = openFolderStore(folder)
  const chains = await chainsOf(store)
  const records = (await Promise.all(chains.map((one) => new CommitChain(store, one).records()))).flat()
  const python = await installedReaders()
  const scratch = await mkdtemp(join(tmpdir(), 'archived-'))
  try {
    const rows: Record<string, number> = {}
    const tables: Record<string, object> = {}
    for (const type of EVENT_TYPES) {
      const { name, columns, identity } = ARCHIVE_TABLES[type]
      const files = records.flatMap((record) => record.files.filter((file) => file.table === name))
      const expected = join(scratch, `${name}.txt`)
      rows[name] = await writeRows(databaseUrl, type, columns, expected)
      const paths = files.map(({ key }) => join(folder, key))
      tables[name] = { files: paths, columns: columns.map((one) => [one.name, one.kind]), identity, expected }
    }
    const counts = { rows, segments: records.length }
    if (typeof python !== 'string') return { ...counts, readers: [], skipped: python.skip, violations: [] }
    const answer = await read(python, { tables })
    const violations = Object.entries(answer).flatMap(([reader, byTable]) =>
      Object.entries(byTable).flatMap(([table, found]) =>
        found.differences.map((one) => `Archive, ${table}, read by ${reader}: ${one}.`),
      ),
    )
    return { ...counts, readers: Object.keys(answer), skipped: null, violations }
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

/** Writes one line per row of a table: its values as texts, without those that are null. */
async function writeRows(
  url: string,
  type: EventType,
  columns: readonly ArchiveColumn[],
  path: string,
): Promise<number> {
  const query = `SELECT concat_ws(' ', ${columns.map(textOf).join()}) FROM ${storedRows(type)}`
  const reader = await TextReader.open({ url, timeoutMs: QUERY_LIMIT_MS, applicationName: 'tapeline-chaos' })
  const file = createWriteStream(path)
  let count = 0
  try {
    for await (const { rows } of reader.select(query, [], ROWS_AT_ONCE)) {
      count += rows.length
      if (!file.write(rows.map((row) => `${row[0]}\n`).join(''))) await once(file, 'drain')
    }
  } finally {
    file.end()
    await finished(file)
    await reader.close()
  }
  return count
}

function textOf({ name, kind }: ArchiveColumn): string {
  if (kind === 'time') return `(extract(epoch FROM ${name}) * 1000000)::bigint`
  // Packed levels have the fewest decimals that hold them.
  if (kind === 'decimal') return `${name}::numeric(20, 8)`
  return kind === 'flag' ? `${name}::text` : name
}

async function read(python: string, job: object): Promise<z.infer<typeof ANSWER>> {
  const child = spawn(python, [READERS], { stdio: ['pipe', 'pipe', 'pipe'] })
  child.stdin.end(JSON.stringify(job))
  const ended = once(child, 'close')
  const [said, errors] = await Promise.all([text(child.stdout), text(child.stderr)])
  const [code] = await ended
  if (code !== 0) throw new Error(`${READERS} ended with ${code}: ${errors}`)
  return ANSWER.parse(JSON.parse(said))
}
