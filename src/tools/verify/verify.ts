import { readOffsets } from '../../foundation/store/consumer-offsets.ts'
import type { Database, Queryable } from '../../foundation/store/database.ts'
import { inStep } from '../../foundation/store/unanswered.ts'
import { checkQuantities } from './aggregate-quantities.ts'
import { checkTiling } from './aggregate-tiling.ts'
import { checkBooks } from './books.ts'
import { checkContinuity, checkDuplicates } from './continuity.ts'
import { readDeadLetters } from './dead-letters.ts'
import { type DepthRows, packedRows } from './depth-rows.ts'
import { finding, type Remark, split, unchecked } from './findings.ts'
import { checkBounds } from './id-bounds.ts'
import { checkLedger } from './ledger.ts'
import { quoteOutages } from './quote-outages.ts'
import { checkQuoteRepeats, readOutages, readQuotes } from './quotes.ts'
import { checkRecordings } from './recordings.ts'
import type { Report, SequenceReport } from './report-types.ts'
import { above, readBelow, readFloors } from './retention.ts'
import { isCut, refuseUnknownSymbols, type Scope, TABLE_NAMES, TICK_TABLES } from './scope.ts'
import {
  beforeStart,
  judgeSequences,
  readDepthSequences,
  readSequences,
  type Sequence,
  tradeEpochs,
} from './sequences.ts'
import { type EndOffsets, lostTails, type StoredUntil, storedUntilMs, watermarkOf } from './watermark.ts'

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
  /** The levels of order books; null: they are not audited. Default: those of the tables. */
  readonly depthRows?: DepthRows | null
  /** Called while order books are rebuilt, with how many of all changes are read. */
  readonly onProgress?: (symbol: string, changes: number, all: number) => void
  /** Default: unknown. */
  readonly storedUntil?: StoredUntil
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

/** Does the same in the caller's transaction. @throws TapelineError `INPUT` for an unknown symbol */
export async function audit(connection: Queryable, options: AuditOptions): Promise<Report> {
  const { scope, limit, asksExchange = false, storedUntil = () => 0, onProgress = () => {} } = options
  const { depthRows = packedRows(connection) } = options
  const context = { connection, scope, limit }
  const durations = new Map<string, number>()
  const timed = async <Result>(check: string, work: () => Promise<Result>): Promise<Result> => {
    const startMs = performance.now()
    const result = await inStep(`verify, ${check}`, work)
    durations.set(check, (durations.get(check) ?? 0) + performance.now() - startMs)
    return result
  }
  await connection.query(SETTINGS)
  if (options.allowsUnknown !== true) await refuseUnknownSymbols(context)
  const taken = await connection.query<{ now: Date }>('SELECT now() AS now')
  const watermark = await timed('watermark', async () => {
    const stored = await readOffsets(connection)
    return watermarkOf(stored, await options.readEnds(stored))
  })
  const floors = await readFloors(context)
  const ofTrades = above(context, floors.trades)
  const ofQuotes = above(context, floors.book_ticker)
  const ofDepth = above(context, floors.depth_updates)
  const trades = await timed('sequences', () => readSequences(ofTrades))
  const changes = depthRows === null ? [] : await timed('sequences', () => readDepthSequences(ofDepth))
  const sequences = [...trades, ...changes]
  const quotes = await timed('sequences', () => readQuotes(ofQuotes))
  const letters = await timed('dead letters', () => readDeadLetters(context))
  const remarks = judgeSequences(sequences, quotes)
  const audited: SequenceReport[] = []
  for (const sequence of sequences) {
    const found = await timed('continuity', () =>
      checkContinuity(
        sequence.eventType === 'depth' ? ofDepth : ofTrades,
        sequence,
        letters.idsOf(sequence),
        isCut(scope),
      ),
    )
    const doubled = found.isDoubled
      ? await timed('duplicates', () => checkDuplicates(ofTrades, sequence))
      : []
    const { firstTime, lastTime, begins, ...stored } = sequence
    audited.push({ ...stored, ...found.figures, doubled: doubled[0]?.count ?? 0 })
    remarks.push(...found.remarks, ...doubled)
    if (sequence.eventType !== 'aggTrade') continue
    const epochs = tradeEpochs(trades, ofTrades.scope, sequence)
    const sums = await timed('aggregate quantities', () => checkQuantities(ofTrades, sequence, epochs))
    const tiling = await timed('aggregate tiling', () => checkTiling(ofTrades, sequence, epochs, letters))
    remarks.push(...sums, ...tiling)
  }
  const repeats = await timed('quote repeats', () => checkQuoteRepeats(ofQuotes))
  const outages = await timed('outages', () => readOutages(context))
  remarks.push(
    ...repeats,
    ...(await timed('trade bounds', () => checkBounds(context, 'trades'))),
    ...(await timed('quote bounds', () => checkBounds(context, 'book_ticker'))),
  )
  if (depthRows !== null)
    for (const table of ['depth_updates', 'depth_snapshots'] as const)
      remarks.push(...(await timed('order book bounds', () => checkBounds(context, table))))
  const books =
    depthRows === null
      ? NO_BOOKS
      : await timed('order books', async () => {
          const outagesOf = await quoteOutages(ofQuotes, quotes)
          const how = {
            rows: depthRows,
            sequences: changes,
            outagesOf,
            lettersOf: letters.quotesOf,
            onProgress,
          }
          return checkBooks(ofDepth, how)
        })
  remarks.push(...books.remarks)
  const ledger = await timed('ledger', () => checkLedger(context, sequences))
  const recordings = await timed('recordings', () =>
    checkRecordings(ofTrades, ofQuotes.scope.fromMs, sequences, quotes, {
      storedUntilMs: storedUntilMs(watermark, storedUntil),
      asksExchange,
      includesDepth: depthRows !== null,
    }),
  )
  remarks.push(
    ...recordings,
    ...ledger,
    ...letters.findings,
    ...clocks(sequences),
    ...lostTails(watermark),
    ...beforeStart(sequences),
    ...(await timed('retention', () =>
      readBelow(context, floors, depthRows === null ? TICK_TABLES : TABLE_NAMES),
    )),
    ...never(scope, asksExchange),
  )
  const { findings, notChecked } = split(remarks)
  const isEmpty = sequences.length === 0 && quotes.length === 0
  const isClean = findings.every(({ severity }) => severity === 'notice')
  return {
    format: 1,
    takenAt: (taken.rows[0]?.now ?? new Date()).toISOString(),
    scope: {
      symbols: scope.symbols && [...scope.symbols],
      from: isoOrNull(scope.fromMs),
      to: isoOrNull(scope.toMs),
    },
    watermark,
    sequences: audited,
    quotes: quotes.map((quote) => ({
      ...quote,
      doubled: repeats.find(({ symbol }) => symbol === quote.symbol)?.count ?? 0,
    })),
    outages,
    books: books.books,
    findings: findings.sort((left, right) => left.severity.localeCompare(right.severity)),
    notChecked,
    compared: null,
    timings: [...durations].map(([check, ms]) => ({ check, ms: Math.round(ms) })),
    verdict: isClean ? (isEmpty ? 'empty' : 'clean') : 'not clean',
  }
}

const NO_BOOKS = { books: [], remarks: [] }

/** Clocks synchronised by NTP differ by some milliseconds, which does not matter. */
const CLOCK_NOTICE_MS = 100

/** The transfer time plus the difference of the clocks; negative when our clock is late. */
function clocks(sequences: readonly Sequence[]): Remark[] {
  return sequences.flatMap(({ symbol, eventType, epoch, leastLatencyMs }) => {
    if (leastLatencyMs === null || leastLatencyMs > -CLOCK_NOTICE_MS) return []
    const summary = `received up to ${(-leastLatencyMs).toFixed(3)} ms before it was sent: this machine's clock was late compared with the exchange's`
    return [finding({ check: 'clock', kind: 'late', severity: 'notice', symbol, eventType, epoch, summary })]
  })
}

/** Lists what no audit of the tables can check. */
function never(scope: Scope, asksExchange: boolean): Remark[] {
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
