import { type AcknowledgementFigures, acknowledgementFigures } from './acknowledgements.ts'
import type { Aftermath } from './aftermath.ts'
import type { ArchiveCheck } from './archived.ts'
import type { Incident } from './faults.ts'
import { type Figures, figuresOf } from './figures.ts'
import type { Observer } from './observer.ts'
import type { PART_NAMES, PartName } from './options.ts'
import { type ChaosOptions, commandOf } from './options.ts'
import type { SupervisedPart } from './part.ts'
import type { RecordedBooks } from './recorded-books.ts'
import type { ServiceName } from './recoveries.ts'
import type { Saboteur } from './saboteur.ts'
import { heapSlopeOf, type Slope, slopeOf } from './slopes.ts'
import type { Stage } from './stage.ts'
import type { Violations } from './violations.ts'

/**
 * Durations of one kind of fault in milliseconds: the fault itself, from its beginning to recovery,
 * and from its end to recovery.
 */
export interface RecoveryFigures {
  readonly held: Figures
  readonly toHealthy: Figures
  readonly afterwards: Figures
}

/** All figures of a run, as `--json` writes them. Durations in milliseconds. */
export interface ChaosResult {
  readonly ok: boolean
  readonly seed: number
  /** The command that repeats the run. */
  readonly command: string
  readonly database: string
  /** Duration of the faults, and until the system was quiet. */
  readonly brokenMs: number
  readonly durationMs: number
  readonly faults: Readonly<Record<string, number>>
  /** Faults that struck nothing. */
  readonly inVain: Readonly<Record<string, number>>
  readonly rows: Readonly<Record<string, number>>
  readonly messagesReceived: number
  readonly messagesPerSecond: number
  readonly recoveries: Readonly<Record<string, RecoveryFigures>>
  /** Time from the detection of a gap until it was filled. */
  readonly gapToFilled: Figures
  /** From the start of a consumer's process until it stores rows. */
  readonly consumerStartToRows: Figures
  readonly ledger: { readonly filled: number; readonly unrecoverable: number; readonly windows: number }
  readonly quotes: { readonly outages: number; readonly doubled: number }
  readonly comparedTrades: { readonly rows: number; readonly deniedIds: number }
  readonly kafka: {
    readonly messages: number
    readonly repeatedTrades: number
    readonly repeatedQuotes: number
    readonly repeatedBooks: number
    readonly outOfOrder: number
  }
  readonly stamps: {
    readonly rows: number
    readonly wrong: number
    readonly wrongClocks: number
    readonly inLedger: number
  }
  /** How long Kafka acknowledged nothing although events were waiting. */
  readonly acknowledgements: AcknowledgementFigures
  /**
   * Memory growth of the services during an outage of all brokers, or over the whole run without
   * one. Null: not measured.
   */
  readonly memorySlopes: Readonly<
    Record<ServiceName, { readonly resident: Slope | null; readonly heap: Slope | null }>
  >
  /** Null without an archive. */
  readonly archive: ArchiveCheck | null
  /** Null without order books. */
  readonly books: RecordedBooks | null
  readonly brokers: number
  readonly peakMemoryBytes: Readonly<Record<PartName, number>>
  readonly restarts: Readonly<Record<PartName, number>>
  /** Every fault with its beginning and end. */
  readonly incidents: readonly Incident[]
  /** What `tapeline verify` printed. */
  readonly verify: string
  /** Windows of wrong tops in it, of quotes that the exchange dropped. */
  readonly lostQuotesFound: number
  /** Violations, one sentence each. */
  readonly violations: readonly string[]
}

interface Parts {
  readonly options: ChaosOptions
  readonly stage: Stage
  readonly observer: Observer
  readonly saboteur: Saboteur
  readonly violations: Violations
  readonly aftermath: Aftermath
  readonly brokenMs: number
  readonly durationMs: number
}

export function resultOf(parts: Parts): ChaosResult {
  const { options, stage, observer, saboteur, violations, aftermath, brokenMs, durationMs } = parts
  const { trades, quotes, stamps, ledger, topics } = aftermath
  const recoveries = observer.recoveries.done()
  const after = (kinds: readonly string[]) =>
    recoveries
      .filter(({ kind }) => kinds.includes(kind))
      .map(({ heldMs, toHealthyMs }) => toHealthyMs - heldMs)
  return {
    ok: violations.count === 0,
    seed: options.seed,
    command: commandOf(options),
    database: stage.databaseKind,
    brokenMs: Math.round(brokenMs),
    durationMs: Math.round(durationMs),
    faults: Object.fromEntries([...saboteur.counts].sort()),
    inVain: Object.fromEntries([...saboteur.inVain].sort()),
    rows: aftermath.rows,
    messagesReceived: observer.received,
    messagesPerSecond: Math.round((observer.received * 1000) / durationMs),
    recoveries: Object.fromEntries(
      [...saboteur.counts.keys()].sort().map((name) => {
        const own = recoveries.filter(({ kind }) => kind === name)
        return [
          name,
          {
            held: figuresOf(own.map(({ heldMs }) => heldMs)),
            toHealthy: figuresOf(own.map(({ toHealthyMs }) => toHealthyMs)),
            afterwards: figuresOf(after([name])),
          },
        ]
      }),
    ),
    gapToFilled: figuresOf(ledger.fillTimesMs),
    consumerStartToRows: figuresOf(after(['consumer kill', 'consumer restart'])),
    ledger: { filled: ledger.filled, unrecoverable: ledger.unrecoverable, windows: ledger.windows },
    quotes: { outages: quotes.outages, doubled: quotes.doubled },
    comparedTrades: { rows: trades.rows, deniedIds: trades.denied },
    kafka: {
      messages: topics.messages,
      repeatedTrades: topics.repeatedTrades,
      repeatedQuotes: topics.repeatedQuotes,
      repeatedBooks: topics.repeatedBooks,
      outOfOrder: topics.outOfOrder,
    },
    stamps: {
      rows: stamps.rows,
      wrong: stamps.wrong,
      wrongClocks: stamps.wrongClocks,
      inLedger: stamps.inLedger,
    },
    acknowledgements: acknowledgementFigures(observer.acknowledgements.silences(), saboteur.incidents),
    memorySlopes: {
      ingestion: slopesOf('ingestion', parts),
      consumer: slopesOf('consumer', parts),
    },
    brokers: options.brokers,
    peakMemoryBytes: observer.peakBytes,
    archive: aftermath.archive,
    books: aftermath.books,
    restarts: {
      ingestion: restartsOf(stage.parts.ingestion),
      consumer: restartsOf(stage.parts.consumer),
      broker: restartsOf(stage.parts.broker),
      database: restartsOf(stage.parts.database),
      archive: restartsOf(stage.parts.archive),
    } satisfies Record<(typeof PART_NAMES)[number], number>,
    incidents: saboteur.incidents,
    verify: aftermath.verify.report,
    lostQuotesFound: aftermath.verify.lostQuotes,
    violations: violations.list(),
  }
}

function restartsOf(parts: readonly SupervisedPart[]): number {
  return parts.reduce((sum, { restarts }) => sum + restarts, 0)
}

function slopesOf(service: ServiceName, { stage, observer, saboteur }: Parts) {
  const outage = saboteur.incidents.find(({ name }) => name === 'outage')
  const within =
    outage === undefined ? null : { fromMs: Date.parse(outage.from), toMs: Date.parse(outage.to) }
  return {
    resident: slopeOf(observer.resident[service], within),
    heap: heapSlopeOf(stage.probes[service].heap(), within),
  }
}
