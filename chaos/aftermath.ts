import { describeError } from '../src/foundation/runtime/errors.ts'
import { openPostgres } from '../src/foundation/store/postgres.ts'
import { checkLedger, countRows, type LedgerCheck } from './ledger.ts'
import type { Observer } from './observer.ts'
import { checkQuotes, type QuoteCheck } from './quotes.ts'
import type { Saboteur } from './saboteur.ts'
import { runTapeline, type Stage } from './stage.ts'
import { apartFrom, checkStamps, type StampCheck } from './stamps.ts'
import { checkTopics, type TopicCheck } from './topics.ts'
import { checkTrades, type TruthCheck } from './truth.ts'
import type { Violations } from './violations.ts'

/** What is left when all has become quiet and the services are stopped. */
export interface Aftermath {
  readonly rows: Readonly<Record<string, number>>
  readonly trades: TruthCheck
  readonly quotes: QuoteCheck
  readonly stamps: StampCheck
  readonly ledger: LedgerCheck
  readonly topics: TopicCheck
  /** What `tapeline verify` said. */
  readonly verify: string
}

/** Runs `tapeline verify`, and then our own checks against what really happened. */
export async function examine(
  stage: Stage,
  { outages }: Observer,
  saboteur: Saboteur,
  violations: Violations,
  say: (text: string) => void,
): Promise<Aftermath> {
  say('tapeline verify')
  const verify = await runTapeline(['verify'], stage.settings).catch((error: unknown) => {
    violations.add(`tapeline verify does not pass: ${describeError(error)}`)
    return ''
  })
  const database = openPostgres({
    url: stage.databaseUrl,
    poolMin: 0,
    poolMax: 1,
    queryTimeoutMs: 30 * 60_000,
    applicationName: 'tapeline-chaos',
  })
  try {
    say('comparing every trade with what the exchange says happened')
    const trades = await checkTrades(database, stage.exchange, saboteur.denied)
    say('holding the ledger against the outages of bookTicker')
    const { symbols } = stage.exchange.history
    const { disturbances, wrongClocks } = saboteur
    const expected = apartFrom(outages.list(), wrongClocks)
    const quotes = await checkQuotes(database, symbols, expected, disturbances, wrongClocks)
    say('holding receipt stamps against the time of the exchange')
    const stamps = await checkStamps(database, symbols, wrongClocks)
    const ledger = await checkLedger(database)
    say('reading the topics')
    const topics = await checkTopics(stage.brokers, stage.topics, database)
    for (const check of [trades, quotes, stamps, ledger, topics]) violations.add(...check.violations)
    return { rows: await countRows(database), trades, quotes, stamps, ledger, topics, verify }
  } finally {
    await database.close()
  }
}
