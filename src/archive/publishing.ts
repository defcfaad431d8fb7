import type { ObjectStore } from '../foundation/archive/object-store.ts'
import type { Clock } from '../foundation/runtime/clock.ts'
import type { Announcer } from './announcer.ts'
import { compact, type IsOver, type Published } from './compaction.ts'
import type { CompactionPorts } from './day-merge.ts'
import { markForSweep, type SweepMarks, sweep } from './sweep.ts'

export interface PublishingPorts {
  readonly compaction: CompactionPorts
  readonly isOver: IsOver
  /** Null if nothing is announced. */
  readonly announcer: Pick<Announcer, 'readEnds' | 'announce'> | null
  readonly clock: Clock
  /** Time for which replaced files stay, in milliseconds. */
  readonly graceMs: number
  readonly onPublished: (one: Published) => void
  readonly onRemoved: (files: number) => void
}

/** Publishes days, removes files that newer ones replace, and announces what is published. */
export class Publishing {
  readonly #ports: PublishingPorts
  readonly #store: ObjectStore
  /** Days without files to remove: see {@link markForSweep}. */
  readonly #clean = new Map<string, string>()
  #marks: { readonly atMs: number; readonly of: SweepMarks } | null = null

  constructor(ports: PublishingPorts) {
    this.#ports = ports
    this.#store = ports.compaction.store
  }

  /**
   * Does each of them once. Files are removed also if a day cannot be published: a full disk may be
   * the reason. Nothing is announced then, since that says that everything is published.
   *
   * @throws what failed, after the rest was done
   */
  async run(signal: AbortSignal): Promise<void> {
    const { compaction, isOver, announcer, onPublished } = this.#ports
    const ends = await announcer?.readEnds()
    const errors: unknown[] = []
    await compact(compaction, isOver, onPublished).catch((error: unknown) => errors.push(error))
    signal.throwIfAborted()
    await this.#sweep().catch((error: unknown) => errors.push(error))
    if (errors.length > 1) throw new AggregateError(errors)
    if (errors.length > 0) throw errors[0]
    if (ends !== undefined) await announcer?.announce(ends)
  }

  async #sweep(): Promise<void> {
    const { clock, graceMs, onRemoved } = this.#ports
    const nowMs = clock.monotonicMs()
    if (this.#marks !== null && nowMs - this.#marks.atMs >= graceMs) {
      const removed = await sweep(this.#store, this.#marks.of, clock)
      if (removed > 0) onRemoved(removed)
      this.#marks = null
    }
    this.#marks ??= { atMs: nowMs, of: await markForSweep(this.#store, this.#clean) }
  }
}
