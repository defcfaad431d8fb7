import type { ExchangeGate } from '../foundation/binance/exchange-gate.ts'
import type { TopicMetadata } from '../foundation/kafka/topic-metadata.ts'
import type { TimeUnit } from '../foundation/market/time-unit.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { InstanceWatch } from './checkpoint/instance-watch.ts'
import type { Recovered } from './checkpoint/recovery.ts'
import type { TailEpochs } from './checkpoint/tail-epochs.ts'
import type { OutgoingMessage } from './messages/message.ts'
import type { Ports } from './ports.ts'

/** Dependencies of the pipeline, provided by ingestion. */
export interface PipelineContext {
  readonly ports: Ports
  /** Tells when the exchange accepts requests. */
  readonly gate: Pick<ExchangeGate, 'attempt' | 'leftMs' | 'refused' | 'served'>
  /** Names this process in its checkpoints. */
  readonly instance: string
  /** The highest counter of each symbol's checkpoints that recovery has read. */
  readonly counters: ReadonlyMap<string, number>
  /** Windows of quotes that Kafka acknowledged and then lost, by symbol. */
  readonly lostQuotes: Recovered['lostQuotes']
  /** Ledger rows that recovery has read; ids may be in two of them. */
  readonly rows: Recovered['rows']
  /** Partitions that had lost messages at recovery. */
  readonly truncations: number
  /** Whether the ledger's topic was deleted and recreated since the checkpoints. */
  readonly isLedgerRecreated: boolean
  readonly watch: Pick<InstanceWatch, 'check' | 'close' | 'position' | 'recreated' | 'truncations'>
  readonly tails: Pick<TailEpochs, 'learn' | 'leaderEpoch' | 'close' | 'recreated'>
  readonly topics: ReadonlyMap<string, TopicMetadata>
  /** Grows while ingestion runs. */
  readonly symbols: ReadonlySet<string>
  /** Name of the exchange. */
  readonly source: string
  /** Time unit of the exchange and of the messages. */
  readonly timeUnit: TimeUnit
  readonly send: (message: OutgoingMessage) => void
  /** Whether a partition is set aside. */
  readonly isHeld: (place: { readonly topic: string; readonly partition: number }) => boolean
  /** Resolves when everything sent so far is acknowledged, discarded or set aside. */
  readonly settled: (signal: AbortSignal) => Promise<void>
  readonly whenRoom: (signal: AbortSignal) => Promise<void>
  /**
   * Called when the checkpoints topic was deleted and recreated: the exchange identity must be
   * written into it again.
   */
  readonly claimTopics: () => void
  /** Called every second while frames are read. */
  readonly onSecond: () => void
  /** Drops every connection with its unread bytes and reconnects at once. */
  readonly dropConnections: (reason: string) => void
  /** Called when this instance must stop: another has taken over, or a defect was found. */
  readonly onFatal: (error: unknown) => void
  readonly log: Logger
}

/** Fields known only after recovery. */
export type RecoveredFields = 'instance' | 'watch' | 'tails' | keyof RecoveredState

type RecoveredState = Pick<
  Recovered,
  'counters' | 'lostQuotes' | 'rows' | 'isLedgerRecreated' | 'truncations'
>
