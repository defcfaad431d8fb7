import type { Database } from '../src/foundation/store/database.ts'
import type { Exchange } from '../src/sandbox/simulator/exchange-server.ts'
import { renderAudit } from '../src/tools/verify/report.ts'
import { type Example, type Finding, REPORT } from '../src/tools/verify/report-types.ts'
import { startTapeline } from '../test/support/processes.ts'

/** What `tapeline verify` found. */
export interface VerifyCheck {
  readonly report: string
  /** Windows of wrong tops in which the exchange had dropped a quote: only the order book shows that it is missing. */
  readonly lostQuotes: number
  readonly violations: readonly string[]
}

const LIMIT_MS = 10 * 60_000
/** More than a run can have cases of one finding. */
const EXAMPLES = '10000'

/** Runs `tapeline verify`. It may fail only with quotes that the exchange lost on an open connection. */
export async function checkVerify(
  database: Database,
  env: Readonly<Record<string, string>>,
  { faults }: Pick<Exchange, 'faults'>,
): Promise<VerifyCheck> {
  await using command = startTapeline(['verify', '--json', '--limit', EXAMPLES], { env })
  const { code } = await command.exit(LIMIT_MS)
  if (code !== 0 && code !== 1) {
    const problem = `tapeline verify exited with ${code}: ${command.output()}`
    return { report: '', lostQuotes: 0, violations: [problem] }
  }
  const audit = REPORT.parse(JSON.parse(command.output()))
  const dropped = faults.struck().frames.filter(({ kind }) => kind === 'drop' || kind === 'stall')
  const violations: string[] = []
  let lostQuotes = 0
  for (const found of audit.findings.filter(({ severity }) => severity === 'failure')) {
    const isOfTops = found.check === 'order book' && found.kind === 'top'
    const unexplained: Example[] = []
    for (const one of found.examples) {
      const lacksQuote = isOfTops && (await isQuoteDropped(database, dropped, found, one))
      if (lacksQuote) lostQuotes++
      else unexplained.push(one)
    }
    const [first] = unexplained
    if (first === undefined && found.examples.length > 0) continue
    const { symbol, eventType, summary } = found
    const example =
      first === undefined ? '' : `, such as ${first.from ?? ''}..${first.to ?? ''} ${first.detail}`
    violations.push(`tapeline verify: ${symbol} ${eventType}: ${unexplained.length} ${summary}${example}.`)
  }
  return { report: renderAudit(audit), lostQuotes, violations }
}

/** Whether a quote was dropped between the last stored one and the end of the change with the wrong top. */
async function isQuoteDropped(
  database: Database,
  dropped: ReturnType<Exchange['faults']['struck']>['frames'],
  { symbol }: Pick<Finding, 'symbol'>,
  { from }: Example,
): Promise<boolean> {
  const { rows } = await database.query<{ last: number | null }>(
    'SELECT max(update_id)::float8 AS last FROM book_ticker WHERE symbol = $1 AND update_id <= $2',
    [symbol, from],
  )
  const last = rows[0]?.last ?? 0
  const stream = `${symbol?.toLowerCase()}@bookTicker`
  return dropped.some((one) => one.stream === stream && one.lastId > last && one.lastId <= (from ?? 0))
}
