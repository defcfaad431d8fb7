import type { ExchangeAct } from './exchange-deck.ts'
import type { PartName } from './options.ts'

export const PROCESS_FAULTS = ['kill', 'pause', 'restart'] as const
export type ProcessFaultKind = (typeof PROCESS_FAULTS)[number]

/** A fault of a process. Times in milliseconds since the beginning of the faults. */
export interface ProcessFault {
  readonly atMs: number
  readonly part: PartName
  /** Index of the process if there are several, modulo their number. */
  readonly member: number
  readonly kind: ProcessFaultKind
  /** How long the process stays down or paused. 0: it starts again as soon as it has exited. */
  readonly holdMs: number
}

export const CLUSTER_FAULTS = ['rolling restart', 'election', 'reassignment'] as const
/** `outage`: all brokers are down at once. */
export type ClusterFaultKind = (typeof CLUSTER_FAULTS)[number] | 'outage'

export interface ClusterFault {
  readonly atMs: number
  readonly kind: ClusterFaultKind
  /** Outage: how long all brokers stay down. */
  readonly holdMs: number
  /** Rolling restart: it repeats until this time. */
  readonly untilMs: number
  /** Chooses the partitions of a reassignment. */
  readonly seed: number
}

/**
 * `step`: shifted while the service runs. `start`: shifted while it restarts. `suspend`: shifted
 * forward while it is paused.
 */
export const CLOCK_FAULTS = ['step', 'start', 'suspend'] as const

export interface ClockFault {
  readonly atMs: number
  readonly part: 'ingestion' | 'consumer'
  readonly kind: (typeof CLOCK_FAULTS)[number]
  /** How far the wall clock is ahead; negative: it is slow. */
  readonly stepMs: number
  /** How long the service is paused by a suspend; 0 otherwise. */
  readonly stillMs: number
  /** How long the clock is wrong. */
  readonly holdMs: number
}

/** The disk of the archive is full. */
export interface DiskFault {
  readonly atMs: number
  readonly holdMs: number
}

export interface ExchangeFault {
  readonly atMs: number
  /** Name in counts and reports: `garbage truncated`. */
  readonly name: string
  /** How long it lasts; 0 if it strikes once. */
  readonly holdMs: number
  readonly act: ExchangeAct
}

/** One fault as it was carried out. Times are ISO 8601, UTC. */
export interface Incident {
  readonly name: string
  readonly from: string
  /** When the fault was over, or the part ran again. */
  readonly to: string
}
