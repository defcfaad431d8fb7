import { Archiver } from '../../src/archive/archiver.ts'
import { compact } from '../../src/archive/compaction.ts'
import { DayEnds } from '../../src/archive/day-ends.ts'
import { markForSweep, type SweepMarks, sweep } from '../../src/archive/sweep.ts'
import { openFolderStore } from '../../src/foundation/archive/folder-store.ts'
import type { Clock } from '../../src/foundation/runtime/clock.ts'
import { createLogger, type Logger } from '../../src/foundation/telemetry/log.ts'
import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import type { MemoryGroup } from '../consumer-simulation/memory-group.ts'
import { LifeClock } from '../support/life-clock.ts'
import type { MemoryDisk } from './memory-disk.ts'
import type { MemoryTopic } from './memory-topic.ts'
import type { EngineDefect } from './plain-engine.ts'
import { identityOf, PlainEngine, rowsOf } from './plain-engine.ts'

export const FOLDER = '/archive'
const GRACE_MS = 20 * 60_000
const LOG = createLogger('simulation', 'silent')

export interface Ports {
  readonly clock: Clock
  readonly random: Random
  readonly topic: MemoryTopic
  readonly group: MemoryGroup
  readonly disk: MemoryDisk
  readonly engineDefect: EngineDefect | null
  readonly sweepsAll: boolean
  readonly logger?: Logger
  readonly onCommitted: (rows: readonly string[]) => void
  readonly onPublished: () => void
}

/** One archive process: the real archiver, compaction and sweep, in the real folder store on a memory disk. */
export class ArchiveProcess {
  readonly life: LifeClock
  readonly failures: string[] = []
  fatal: unknown = null
  isStopping = false
  archiver: Archiver | null = null
  readonly #ports: Ports

  constructor(ports: Ports) {
    this.#ports = ports
    this.life = new LifeClock(ports.clock)
    void this.#run()
  }

  crash(): void {
    this.life.die()
  }

  async stop(): Promise<void> {
    this.isStopping = true
    const limit = new AbortController()
    this.life.schedule(8000, () => limit.abort(new Error('too late')))
    await this.archiver?.stop(limit.signal)
    this.life.die()
  }

  async #run(): Promise<void> {
    const { disk, random, topic, group, engineDefect, onCommitted } = this.#ports
    const { life } = this
    const files = disk.open(life)
    const store = openFolderStore(FOLDER, files)
    while (
      !(await store.prepare().then(
        () => true,
        () => false,
      ))
    )
      await life.wait(1000)
    const engine = new PlainEngine(disk)
    engine.defect = engineDefect
    const log = this.#ports.logger ?? LOG
    const archiver = new Archiver(
      {
        topics: {
          trades: 'trades',
          bookTicker: 'q',
          depth: 'depth',
          gaps: 'g',
          checkpoints: 'c',
          deadLetters: 'd',
        },
        ...{
          flushIntervalMs: 120_000,
          bufferBytes: 64 << 20,
          fetchMaxWaitMs: 5000,
          sessionTimeoutMs: 10_000,
        },
        backoff: { initialMs: 500, maxMs: 5000 },
      },
      {
        ...{ clock: life, random: random.next, log, store, duckDb: engine },
        openFetcher: () => topic.open(life),
        openGroupClient: () => group.open(life),
        onCommitted: (segment) =>
          onCommitted([...segment.buffers.values()].flatMap((rows) => rowsOf(rows).map(identityOf))),
        onFatal: (error) => {
          this.fatal ??= error
        },
      },
    )
    this.archiver = archiver
    archiver.start()
    const days = new DayEnds(store, () => archiver.readEnds(), life)
    const ports = {
      store,
      clock: life,
      merge: engine.mergeIn(store, files),
      readLedger: async () => ({ gaps: new Map(), changed: [] }),
    }
    let marks: { readonly atMs: number; readonly of: SweepMarks } | null = null
    for (;;) {
      await life.wait(random.interval(4 * 60_000))
      // Two processes may believe that they publish.
      if (!archiver.isFirst && !random.chance(0.2)) continue
      try {
        const published = await compact(ports, (...of) => days.isOver(...of))
        if (published.length > 0) this.#ports.onPublished()
        if (marks !== null && life.monotonicMs() - marks.atMs >= GRACE_MS) {
          await sweep(store, this.#ports.sweepsAll ? withoutFolds(marks.of) : marks.of, life)
          marks = null
        }
        marks ??= { atMs: life.monotonicMs(), of: await markForSweep(store) }
      } catch (error) {
        this.failures.push(String(error))
      }
    }
  }
}

/** A defect: everything that has a record counts as published. */
function withoutFolds({ chains, days }: SweepMarks): SweepMarks {
  return { chains: chains.map((one) => ({ ...one, foldedTo: one.head })), days }
}
