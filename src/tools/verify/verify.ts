import { readOffsets } from '../../foundation/store/consumer-offsets.ts'
import type { Database, Queryable } from '../../foundation/store/database.ts'
import { inStep } from '../../foundation/store/unanswered.ts'
import { checkQuantities } from './aggregate-quantities.ts'
import { checkTiling } from './aggregate-tiling.ts'
import { checkContinuity } from './continuity.ts'
import { readDeadLetters } from './dead-letters.ts'
import { checkDuplicates } from './duplicates.ts'
import { finding, unchecked } from './findings.ts'
import { checkQuoteBounds, checkTradeBounds } from './id-bounds.ts'
import { checkLedger } from './ledger.ts'
import { readOutages } from './outages.ts'
import { checkQuoteRepeats } from './quote-repeats.ts'
import { checkRecordings } from './recordings.ts'
import type { Finding, NotChecked, Report, SequenceReport } from './report-types.ts'
import { above, readBelow, readFloors } from './retention.ts'
import { type CheckContext, isCut, refuseUnknownSymbols, type Scope } from './scope.ts'
import { beforeStart, judgeSequences, readQuotes, readSequences, type Sequence } from './sequences.ts'
import { tradeEpochs } from './trade-epochs.ts'
import { type EndOffsets, lostTails, watermarkOf } from './watermark.ts'

export interface AuditOptions {
  readonly scope: Scope
  /** Maximum number of examples per finding, at least 1. */
  readonly limit: number
  readonly readEnds: EndOffsets['read']
  /** Cancels the running check. */
  readonly signal?: AbortSignal
  /** Gives an unknown symbol an empty report instead of an error. */
  readonly allowsUnknown?: boolean
  /** A comparison with the exchange follows: it finds the trades of silent symbols. */
  readonly asksExchange?: boolean
}

/** Limit of one statement of a check. The ids of a month of a busy symbol take minutes. */
export const CHECK_LIMIT_MS = 30 * 60_000

/** Sorts of a busy day spill to disk above this. Compiling a statement costs more than it saves. */
const SETTINGS = `SET LOCAL work_mem = '64MB'; SET LOCAL jit = off`

/**
 * Audits the stored rows. Every check reads the rows of the same moment. Changes nothing.
 *
 * The embedded database has one backend, so other clients wait until the audit ends.
 */
export function verify(database: Database, options: AuditOptions): Promise<Report> {
  const how = { isSnapshot: true, limitMs: CHECK_LIMIT_MS, signal: options.signal }
  return database.transaction((connection) => audit(connection, options), how)
}

/**
 * Does the same on the caller's connection, within its transaction.
 *
 * @throws TapelineError `INPUT` for an unknown symbol
 */
export async function audit(connection: Queryable, options: AuditOptions): Promise<Report> {
  const context: CheckContext = { connection, scope: options.scope, limit: options.limit }
  const watch = new Stopwatch()
  await connection.query(SETTINGS)
  if (options.allowsUnknown !== true) await refuseUnknownSymbols(context)
  const taken = await connection.query<{ now: Date }>('SELECT now() AS now')
  const watermark = await watch.time('watermark', async () =>
    watermarkOf(await readOffsets(connection), await options.readEnds()),
  )
  const floors = await readFloors(context)
  const ofTrades = above(context, floors.trades)
  const ofQuotes = above(context, floors.book_ticker)
  const sequences = await watch.time('sequences', () => readSequences(ofTrades))
  const quotes = await watch.time('sequences', () => readQuotes(ofQuotes))
  const letters = await watch.time('dead letters', () => readDeadLetters(context))
  const findings: Finding[] = judgeSequences(
    sequences,
    quotes.map(({ symbol }) => symbol),
  )
  const notChecked: NotChecked[] = []
  const audited: SequenceReport[] = []
  for (const sequence of sequences) {
    const { symbol, eventType, epoch } = sequence
    const ids = letters.idsOf(symbol, eventType, epoch)
    const {
      figures,
      isDoubled,
      findings: found,
    } = await watch.time('continuity', () => checkContinuity(ofTrades, sequence, ids, isCut(options.scope)))
    const doubled = isDoubled
      ? await watch.time('duplicates', () => checkDuplicates(ofTrades, sequence))
      : null
    audited.push({ ...figures, doubled: doubled?.count ?? 0 })
    findings.push(...found, ...(doubled === null ? [] : [doubled]))
    if (eventType === 'aggTrade') {
      const epochs = tradeEpochs(sequences, ofTrades.scope, sequence)
      const sums = await watch.time('aggregate quantities', () =>
        checkQuantities(ofTrades, sequence, sequences, epochs),
      )
      const tiling = await watch.time('aggregate tiling', () =>
        checkTiling(ofTrades, sequence, epochs, letters),
      )
      findings.push(...sums.findings, ...(tiling === null ? [] : [tiling]))
      notChecked.push(...sums.notChecked)
    }
  }
  const repeats = await watch.time('quote repeats', () => checkQuoteRepeats(ofQuotes))
  const outages = await watch.time('outages', () => readOutages(context))
  findings.push(...repeats)
  findings.push(...(await watch.time('trade bounds', () => checkTradeBounds(context))))
  findings.push(...(await watch.time('quote bounds', () => checkQuoteBounds(context))))
  const ledger = await watch.time('ledger', () => checkLedger(context, sequences))
  const asksExchange = options.asksExchange === true
  const recordings = await watch.time('recordings', () =>
    checkRecordings(ofTrades, ofQuotes.scope.fromMs, sequences, quotes, watermark, asksExchange),
  )
  findings.push(
    ...recordings.findings,
    ...ledger.findings,
    ...letters.findings,
    ...clocks(sequences),
    ...lostTails(watermark),
  )
  notChecked.push(
    ...recordings.notChecked,
    ...ledger.notChecked,
    ...beforeStart(sequences),
    ...(await watch.time('retention', () => readBelow(context, floors))),
    ...never(options.scope, asksExchange),
  )
  const isEmpty = sequences.length === 0 && quotes.length === 0
  const isClean = findings.every(({ severity }) => severity === 'notice')
  return {
    format: 1,
    takenAt: (taken.rows[0]?.now ?? new Date()).toISOString(),
    scope: {
      symbols: options.scope.symbols === null ? null : [...options.scope.symbols],
      from: isoOrNull(options.scope.fromMs),
      to: isoOrNull(options.scope.toMs),
    },
    watermark,
    sequences: audited,
    quotes: quotes.map((quote) => ({
      ...quote,
      doubled: repeats.find(({ symbol }) => symbol === quote.symbol)?.count ?? 0,
    })),
    outages,
    findings: [...findings].sort((left, right) => left.severity.localeCompare(right.severity)),
    notChecked,
    compared: null,
    timings: watch.timings(),
    verdict: !isClean ? 'not clean' : isEmpty ? 'empty' : 'clean',
  }
}

/** Clocks synchronised by NTP differ by some milliseconds, which does not matter. */
const CLOCK_NOTICE_MS = 100

/**
 * Latency is the transfer time plus the difference of the clocks. A negative value means that our
 * clock is late.
 */
function clocks(sequences: readonly Sequence[]): Finding[] {
  return sequences.flatMap(({ symbol, eventType, epoch, leastLatencyMs }) => {
    if (leastLatencyMs === null || leastLatencyMs > -CLOCK_NOTICE_MS) return []
    const summary = `received up to ${(-leastLatencyMs).toFixed(3)} ms before it was sent: this machine's clock was late compared with the exchange's`
    return [finding({ check: 'clock', kind: 'late', severity: 'notice', symbol, eventType, epoch, summary })]
  })
}

/** Lists what no audit of the tables can check. */
function never(scope: Scope, asksExchange: boolean): NotChecked[] {
  const whats = [
    `ids before the first and after the last stored row of a symbol and type${asksExchange ? ', except after the last of what is announced' : ''}`,
    'quotes that an open connection lost: they have no sequence numbers',
    ...(isCut(scope) ? ['rows outside the range, and a second copy of an id there'] : []),
  ]
  return whats.map((what) => unchecked(what))
}

function isoOrNull(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString()
}

/** Adds up how long each check took. */
class Stopwatch {
  readonly #ms = new Map<string, number>()

  async time<Result>(check: string, work: () => Promise<Result>): Promise<Result> {
    const startMs = performance.now()
    const result = await inStep(`verify, ${check}`, work)
    this.#ms.set(check, (this.#ms.get(check) ?? 0) + performance.now() - startMs)
    return result
  }

  timings(): Report['timings'] {
    return [...this.#ms].map(([check, ms]) => ({ check, ms: Math.round(ms) }))
  }
}
