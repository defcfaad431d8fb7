import type { Aftermath } from './aftermath.ts'
import { type Figures, figuresOf } from './figures.ts'
import type { Observer } from './observer.ts'
import type { PART_NAMES, PartName } from './options.ts'
import { type ChaosOptions, commandOf } from './options.ts'
import type { Incident, Saboteur } from './saboteur.ts'
import type { Stage } from './stage.ts'
import type { Violations } from './violations.ts'

/** How long one kind of fault took, in milliseconds: how long it held, from its beginning until all was well, and from its end. */
export interface RecoveryFigures {
  readonly held: Figures
  readonly toHealthy: Figures
  readonly afterwards: Figures
}

/** All figures of a run, as `--json` writes them. Durations in milliseconds. */
export interface ChaosResult {
  readonly ok: boolean
  readonly seed: number
  /** Does the same again. */
  readonly command: string
  readonly database: string
  /** How long faults were made, and how long until all was quiet. */
  readonly brokenMs: number
  readonly durationMs: number
  readonly faults: Readonly<Record<string, number>>
  /** Those of the exchange that met nothing to strike. */
  readonly inVain: Readonly<Record<string, number>>
  readonly rows: Readonly<Record<string, number>>
  readonly messagesReceived: number
  readonly messagesPerSecond: number
  readonly recoveries: Readonly<Record<string, RecoveryFigures>>
  /** From the detection of a gap to its end. */
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
    readonly outOfOrder: number
  }
  readonly peakMemoryBytes: Readonly<Record<PartName, number>>
  readonly restarts: Readonly<Record<PartName, number>>
  /** Every fault, when it began and when it was over. */
  readonly incidents: readonly Incident[]
  readonly verify: string
  /** What did not hold, each as one sentence. */
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
  const { trades, quotes, ledger, topics } = aftermath
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
      outOfOrder: topics.outOfOrder,
    },
    peakMemoryBytes: observer.peakBytes,
    restarts: {
      ingestion: stage.parts.ingestion.restarts,
      consumer: stage.parts.consumer.restarts,
      broker: stage.parts.broker.restarts,
      database: stage.parts.database.restarts,
    } satisfies Record<(typeof PART_NAMES)[number], number>,
    incidents: saboteur.incidents,
    verify: aftermath.verify,
    violations: violations.list(),
  }
}
