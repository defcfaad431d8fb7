import type { ExchangeGate } from '../foundation/binance/exchange-gate.ts'
import type { TopicMetadata } from '../foundation/kafka/topic-metadata.ts'
import type { TimeUnit } from '../foundation/market/time-unit.ts'
import type { Logger } from '../foundation/telemetry/log.ts'
import type { InstanceWatch } from './checkpoint/instance-watch.ts'
import type { Recovered } from './checkpoint/recovery.ts'
import type { TailEpochs } from './checkpoint/tail-epochs.ts'
import type { OutgoingMessage } from './messages/outgoing-message.ts'
import type { Ports } from './ports.ts'

/** What the pipeline depends on, provided by ingestion. */
export interface PipelineContext {
  readonly ports: Ports
  /** When the exchange may be asked. */
  readonly gate: Pick<ExchangeGate, 'attempt' | 'leftMs' | 'refused' | 'served'>
  /** Names this process in its checkpoints. */
  readonly instance: string
  /** The highest counter of each symbol's checkpoints that recovery has read. */
  readonly counters: ReadonlyMap<string, number>
  /** The windows of quotes that Kafka acknowledged and lost, by symbol. */
  readonly lostQuotes: Recovered['lostQuotes']
  /** Rows of the ledger that recovery has read, and of which ids may be in two. */
  readonly rows: Recovered['rows']
  /** Partitions that had lost messages when the topics were read. */
  readonly truncations: number
  /** The ledger's topic was deleted and made again since the checkpoints. */
  readonly isLedgerRecreated: boolean
  readonly watch: Pick<InstanceWatch, 'check' | 'close' | 'position' | 'recreated' | 'truncations'>
  readonly tails: Pick<TailEpochs, 'learn' | 'leaderEpoch' | 'close' | 'recreated'>
  readonly topics: ReadonlyMap<string, TopicMetadata>
  /** Grows while ingestion runs. */
  readonly symbols: ReadonlySet<string>
  /** The exchange. */
  readonly source: string
  /** The unit of the exchange's times, and of those in messages. */
  readonly timeUnit: TimeUnit
  readonly send: (message: OutgoingMessage) => void
  /** Kafka does not take a partition now. */
  readonly isHeld: (place: { readonly topic: string; readonly partition: number }) => boolean
  /** Resolves when all that was sent so far is acknowledged, discarded or held. */
  readonly settled: (signal: AbortSignal) => Promise<void>
  readonly whenRoom: (signal: AbortSignal) => Promise<void>
  /** The topic of the checkpoints was deleted and made again: whose data these topics have is to be noted in it. */
  readonly claimTopics: () => void
  /** Called every second while frames are read. */
  readonly onSecond: () => void
  /** Drops every connection, with what waits to be read, and connects again at once. */
  readonly dropConnections: (reason: string) => void
  /** Another instance has taken over, or a defect: this one must stop. */
  readonly onFatal: (error: unknown) => void
  readonly log: Logger
}

/** Known only once the topics have been read. */
export type RecoveredFields = 'instance' | 'watch' | 'tails' | keyof RecoveredState

type RecoveredState = Pick<
  Recovered,
  'counters' | 'lostQuotes' | 'rows' | 'isLedgerRecreated' | 'truncations'
>
