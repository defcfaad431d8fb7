import { openPostgres } from '../src/foundation/store/postgres.ts'
import { type ArchiveCheck, checkArchive } from './archived.ts'
import { checkLedger, countRows, type LedgerCheck } from './ledger.ts'
import type { Observer } from './observer.ts'
import type { ChaosOptions } from './options.ts'
import { checkQuotes, type QuoteCheck } from './quotes.ts'
import { checkRecordedBooks, type RecordedBooks } from './recorded-books.ts'
import type { Saboteur } from './saboteur.ts'
import type { Stage } from './stage.ts'
import { apartFrom, checkStamps, type StampCheck } from './stamps.ts'
import { checkTopics, type TopicCheck } from './topics.ts'
import { checkTrades, type TruthCheck } from './truth.ts'
import { checkVerify, type VerifyCheck } from './verified.ts'
import type { Violations } from './violations.ts'

/** Findings after the system is quiet and the services have stopped. */
export interface Aftermath {
  readonly rows: Readonly<Record<string, number>>
  readonly trades: TruthCheck
  readonly quotes: QuoteCheck
  readonly stamps: StampCheck
  readonly ledger: LedgerCheck
  readonly topics: TopicCheck
  /** Null without an archive. */
  readonly archive: ArchiveCheck | null
  /** Null without order books. */
  readonly books: RecordedBooks | null
  readonly verify: VerifyCheck
}

/** Runs `tapeline verify`, then compares the stored data with what the exchange generated. */
export async function examine(
  options: ChaosOptions,
  stage: Stage,
  { outages }: Observer,
  saboteur: Saboteur,
  violations: Violations,
  say: (text: string) => void,
): Promise<Aftermath> {
  const database = openPostgres({
    url: stage.databaseUrl,
    poolMin: 0,
    poolMax: 1,
    queryTimeoutMs: 30 * 60_000,
    applicationName: 'tapeline-chaos',
  })
  try {
    say('tapeline verify')
    const verify = await checkVerify(database, stage.settings, stage.exchange)
    say('comparing every trade with the trades of the exchange')
    const trades = await checkTrades(database, stage.exchange, saboteur.denied)
    say('comparing the ledger with the outages of bookTicker')
    const { symbols } = stage.exchange.history
    const { disturbances, wrongClocks } = saboteur
    const expected = apartFrom(outages.list(), wrongClocks)
    const quotes = await checkQuotes(database, symbols, expected, disturbances, wrongClocks)
    say('comparing receipt times with the exchange times')
    const stamps = await checkStamps(database, symbols, wrongClocks)
    const ledger = await checkLedger(database)
    say('reading the topics')
    const topics = await checkTopics(stage.brokers, stage.topics, database)
    const { archiveFolder } = stage
    if (archiveFolder !== null) say('comparing the archive with the tables, by DuckDB, polars and pyarrow')
    const archive = archiveFolder === null ? null : await checkArchive(archiveFolder, stage.databaseUrl)
    const books = options.depth ? await checkRecordedBooks(database, stage, saboteur, options, say) : null
    for (const check of [verify, trades, quotes, stamps, ledger, topics, archive, books])
      violations.add(...(check?.violations ?? []))
    const rows = await countRows(database)
    return { rows, trades, quotes, stamps, ledger, topics, archive, books, verify }
  } finally {
    await database.close()
  }
}
