import { WriteCounts } from '../../src/consumer/batch-writer.ts'
import { Worker, type WorkerConfig } from '../../src/consumer/worker.ts'
import { headersOf } from '../../src/foundation/dead-letters/dead-letter.ts'
import type { Clock } from '../../src/foundation/runtime/clock.ts'
import { createLogger, type Logger } from '../../src/foundation/telemetry/log.ts'
import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import { LifeClock } from '../support/life-clock.ts'
import { record } from '../support/records.ts'
import type { MemoryDatabase } from './memory-database.ts'
import type { MemoryGroup } from './memory-group.ts'
import type { MemoryLog } from './memory-log.ts'

const CONFIG: WorkerConfig = {
  topics: {
    trades: 'trades',
    bookTicker: 'quotes',
    depth: 'depth',
    gaps: 'gaps',
    checkpoints: '-',
    deadLetters: 'letters',
  },
  batchSize: 50,
  flushIntervalMs: 2000,
  fetchMaxWaitMs: 500,
  backoff: { initialMs: 1000, maxMs: 10_000 },
  autoOffsetReset: 'earliest',
  sessionTimeoutMs: 10_000,
}
const LOG = createLogger('simulation', 'silent')

export interface Ports {
  readonly clock: Clock
  readonly random: Random
  readonly log: MemoryLog
  readonly group: MemoryGroup
  readonly database: MemoryDatabase
  /** No logging if absent. */
  readonly logger?: Logger
}

/** One consumer process: the real worker, and its counters. */
export class ConsumerProcess {
  readonly life: LifeClock
  readonly worker: Worker
  readonly counts = new WriteCounts()
  fatal: unknown = null
  isStopping = false

  constructor({ clock, random, log, group, database, logger }: Ports) {
    const life = new LifeClock(clock)
    this.life = life
    this.worker = new Worker(CONFIG, {
      clock: life,
      random: random.next,
      store: database.open(life),
      openFetcher: () => log.open(life),
      lackingTopics: new Set(['depth']),
      openGroupClient: () => group.open(life),
      checkSource: () => Promise.resolve(true),
      async sendLetters(letters) {
        do await life.wait(random.between(1, 50))
        while (log.isAway)
        for (const row of letters) {
          log.append('letters', random.whole(0, 3 - 1), {
            record: record(row.payload, row.key, Object.fromEntries(headersOf(row))),
            meant: { row: null, fate: 'letter', event: null },
          })
        }
      },
      log: logger ?? LOG,
      counts: this.counts,
      onLost: () => {},
      onFatal: (error) => {
        this.fatal ??= error
      },
    })
    this.worker.start()
  }

  crash(): void {
    this.life.isAlive = false
  }

  /** Shuts down as at SIGTERM. @returns how many messages were left */
  async stop(): Promise<number> {
    this.isStopping = true
    const limit = new AbortController()
    this.life.schedule(8000, () => limit.abort(new Error('too late')))
    const { left } = await this.worker.stop(limit.signal)
    this.life.isAlive = false
    return left
  }
}
