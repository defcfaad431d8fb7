import type { ExchangeAct } from './exchange-deck.ts'
import type { PartName } from './options.ts'

export const PROCESS_FAULTS = ['kill', 'pause', 'restart'] as const
export type ProcessFaultKind = (typeof PROCESS_FAULTS)[number]

/** Times in milliseconds from the beginning of the faults. */
export interface ProcessFault {
  readonly atMs: number
  readonly part: PartName
  /** Which one of several, modulo their number. */
  readonly member: number
  readonly kind: ProcessFaultKind
  /** How long it stays down or stands still. 0: it is started as soon as it has ended. */
  readonly holdMs: number
}

export const CLUSTER_FAULTS = ['rolling restart', 'election', 'reassignment'] as const
/** `outage`: all brokers at once. */
export type ClusterFaultKind = (typeof CLUSTER_FAULTS)[number] | 'outage'

export interface ClusterFault {
  readonly atMs: number
  readonly kind: ClusterFaultKind
  /** Outage: how long all brokers stay down. */
  readonly holdMs: number
  /** Rolling restart: it begins again until then. */
  readonly untilMs: number
  /** Chooses the partitions of a reassignment. */
  readonly seed: number
}

/** `step`: while it runs. `start`: it is stopped, and started with the wrong clock. `suspend`: it stands still, then the clock is ahead. */
export const CLOCK_FAULTS = ['step', 'start', 'suspend'] as const

export interface ClockFault {
  readonly atMs: number
  readonly part: 'ingestion' | 'consumer'
  readonly kind: (typeof CLOCK_FAULTS)[number]
  /** How far its wall clock is ahead; negative: late. */
  readonly stepMs: number
  /** How long it stands still before a suspend ends; 0 otherwise. */
  readonly stillMs: number
  /** How long the clock is wrong. */
  readonly holdMs: number
}

export interface ExchangeFault {
  readonly atMs: number
  /** As it is counted and shown: `garbage truncated`. */
  readonly name: string
  /** How long it holds, 0 where it strikes once. */
  readonly holdMs: number
  readonly act: ExchangeAct
}

/** One fault as it was carried out. Times as people read them, UTC. */
export interface Incident {
  readonly name: string
  readonly from: string
  /** When it was over, or the part ran again. */
  readonly to: string
}
