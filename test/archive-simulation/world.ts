import { compact } from '../../src/archive/compaction.ts'
import {
  CommitChain,
  chainPath,
  chainsOf,
  isBefore,
  ORIGIN,
} from '../../src/foundation/archive/commit-chain.ts'
import { newestDayList, publishedDates } from '../../src/foundation/archive/day-list.ts'
import { openFolderStore } from '../../src/foundation/archive/folder-store.ts'
import type { LocalFiles } from '../../src/foundation/archive/local-files.ts'
import type { ObjectStore } from '../../src/foundation/archive/object-store.ts'
import { ARCHIVE_TABLES } from '../../src/foundation/archive/tables.ts'
import { mulberry32, Random } from '../../src/sandbox/simulator/market/random.ts'
import { MemoryGroup } from '../consumer-simulation/memory-group.ts'
import { eventValue, tradeValue } from '../support/records.ts'
import { settle, VirtualClock } from '../support/virtual-clock.ts'
import { type DiskDefect, MemoryDisk } from './memory-disk.ts'
import { MemoryTopic } from './memory-topic.ts'
import { dateOf, type EngineDefect, identityOf, PlainEngine, type Row, rowsIn } from './plain-engine.ts'
import { ArchiveProcess, FOLDER } from './process.ts'

export type Defect = DiskDefect | EngineDefect | 'a sweep removes what is not published'

export interface WorldOptions {
  /** The events are trades, and with an even seed diffs of order books, which have several rows. */
  readonly seed: number
  /** Duration with faults; afterwards everything has an hour to recover. */
  readonly virtualMs: number
  readonly defect?: Defect
}

const HOUR_MS = 3_600_000

/**
 * Two archive processes with the real archiver, chains, compaction and sweep on a virtual clock, over
 * an in-memory disk, topic and group, with faults drawn from one seed. Rows of DuckDB are plain ones.
 */
export class World {
  readonly clock = new VirtualClock(Date.UTC(2026, 0, 1, 21))
  readonly random: Random
  readonly topic: MemoryTopic
  readonly group: MemoryGroup
  readonly disk: MemoryDisk
  readonly faults: Record<string, number> = {}
  readonly violations: string[] = []
  readonly processes: ArchiveProcess[] = []
  events = 0
  published = 0
  observations = 0
  /** Rows whose commit was reported: they must stay. */
  readonly #committed = new Set<string>()
  readonly #table: string
  readonly #options: WorldOptions
  readonly #store: ObjectStore
  readonly #files: LocalFiles
  #isQuiet = false

  constructor(options: WorldOptions) {
    this.#options = options
    this.random = new Random(options.seed, mulberry32)
    const isDepth = options.seed % 2 === 0
    this.#table = ARCHIVE_TABLES[isDepth ? 'depth' : 'trade'].name
    this.topic = new MemoryTopic(isDepth ? 'depth' : 'trades', 2, this.random)
    this.group = new MemoryGroup(this.clock, this.random, this.topic.partitions)
    this.disk = new MemoryDisk(this.random)
    const { defect } = options
    if (defect === 'syncs do nothing' || defect === 'a link replaces a file') this.disk.defect = defect
    this.#files = this.disk.open(null)
    this.#store = openFolderStore(FOLDER, this.#files)
  }

  async run(): Promise<void> {
    this.disk.failing = 0.004
    for (let i = 0; i < 2; i++) this.#start()
    const often = (meanMs: number, act: () => void) => this.#often(meanMs, act)
    often(15_000, () => this.#produce())
    often(25 * 60_000, () => this.#crash())
    often(30 * 60_000, () => this.#stopOne())
    often(15 * 60_000, () => this.#suspend())
    often(80 * 60_000, () => this.#powerFailure())
    often(40 * 60_000, () => this.#truncate())
    often(90 * 60_000, () => this.#recreate())
    often(120 * 60_000, () => this.#grow())
    often(20 * 60_000, () => this.group.isolate(this.random.between(3000, 60_000)))
    this.#observeLater()
    await this.clock.advance(this.#options.virtualMs)
    this.#isQuiet = true
    this.disk.failing = 0
    for (let i = 0; i < 10; i++) this.#produce()
    await this.clock.advance(HOUR_MS)
    await settle()
    await this.#observe(true)
    await this.#compactAll().catch((error: unknown) =>
      this.#note(`A4 a day cannot be published: ${String(error)}`),
    )
    await this.#observe(true)
    for (const [i, { fatal }] of this.processes.entries())
      if (fatal !== null) this.violations.push(`A5 process ${i} stopped: ${String(fatal)}`)
  }

  #often(meanMs: number, act: () => void): void {
    this.clock.schedule(this.random.interval(meanMs), () => {
      if (this.#isQuiet) return
      act()
      this.#often(meanMs, act)
    })
  }

  #fault(name: string): void {
    this.faults[name] = (this.faults[name] ?? 0) + 1
  }

  #start(): void {
    const { clock, random, topic, group, disk } = this
    const { defect } = this.#options
    const isOfEngine = defect === 'a merge leaves out a row' || defect === 'a merge keeps repeats'
    this.processes.push(
      new ArchiveProcess({
        ...{ clock, random, topic, group, disk },
        engineDefect: isOfEngine ? defect : null,
        sweepsAll: defect === 'a sweep removes what is not published',
        onCommitted: (rows) => {
          for (const row of rows) this.#committed.add(row)
        },
        onPublished: () => {
          this.published++
        },
      }),
    )
  }

  get #alive(): ArchiveProcess[] {
    return this.processes.filter(({ life, isStopping }) => life.isAlive && !isStopping)
  }

  #restartLater(): void {
    this.clock.schedule(this.random.between(500, 60_000), () => this.#start())
  }

  /** An event, sometimes of the day before, and sometimes one that was sent before. */
  #produce(): void {
    const partition = this.random.whole(0, this.topic.logs.length - 1)
    const isRepeat = this.random.chance(0.05)
    const log = this.topic.logs[partition] ?? []
    const again = isRepeat ? this.random.pickIfAny(log) : undefined
    if (again !== undefined) {
      this.topic.append(partition, again.value, again.rows)
      return
    }
    const nowMs = Math.floor(this.clock.wallMicros() / 1000)
    const timeMs = this.random.chance(0.05) ? nowMs - 12 * HOUR_MS : nowMs
    const id = ++this.events
    const symbol = `S${partition}${id % 3}`
    const [bids, asks] = [id % 4, id % 3]
    const isDepth = this.topic.name === 'depth'
    const levels = isDepth && bids + asks > 0 ? [...levelsOf('bid', bids), ...levelsOf('ask', asks)] : ['']
    const rows = levels.map((level) => identityOf({ symbol, timeUs: timeMs * 1000, id, level }))
    const value = isDepth
      ? eventValue('depth', { s: symbol, U: id, u: id, E: timeMs, b: pairs(bids), a: pairs(asks) })
      : tradeValue({ s: symbol, t: id, T: timeMs, E: timeMs })
    this.topic.append(partition, value, rows)
  }

  #crash(): void {
    const one = this.random.pickIfAny(this.#alive)
    if (one === undefined) return
    this.#fault('crash')
    one.crash()
    this.#restartLater()
  }

  #stopOne(): void {
    const one = this.random.pickIfAny(this.#alive)
    if (one === undefined) return
    this.#fault('stop')
    one.stop().catch((error: unknown) => this.violations.push(`A6 a stop failed: ${String(error)}`))
    this.clock.schedule(12_000, () => one.crash())
    this.#restartLater()
  }

  /** A zombie: it stands still, and continues as if nothing had happened. */
  #suspend(): void {
    this.#fault('pause')
    this.random.pickIfAny(this.#alive)?.life.stopFor(this.random.between(1000, HOUR_MS))
  }

  #powerFailure(): void {
    this.#fault('power failure')
    for (const one of this.processes) one.crash()
    this.disk.powerFailure()
    for (let i = 0; i < 2; i++) this.#restartLater()
  }

  #truncate(): void {
    this.#fault('lost tail')
    this.topic.truncate(this.random.whole(0, this.topic.logs.length - 1), this.random.whole(1, 30))
  }

  #recreate(): void {
    this.#fault('recreated topic')
    this.topic.recreate()
  }

  #grow(): void {
    if (this.topic.logs.length >= 4) return
    this.#fault('added partition')
    this.topic.addPartition()
  }

  #observeLater(): void {
    this.clock.schedule(5 * 60_000, () => {
      void this.#observe(false)
      this.#observeLater()
    })
  }

  /** Reads the archive at one moment: the newest lists, and the segments after them. */
  async #observe(isEnd: boolean): Promise<void> {
    this.observations++
    try {
      const found = new Set((await this.#readAll()).map(identityOf))
      for (const row of this.#committed)
        if (!found.has(row)) this.#note(`A1 ${row} was archived, and is gone`)
      for (const row of found) if (!row.startsWith('S')) this.#note(`A2 ${row} was never sent`)
      if (!isEnd) return
      for (const row of this.topic.logs.flat().flatMap(({ rows }) => rows))
        if (!found.has(row)) this.#note(`A3 ${row} is nowhere`)
    } catch (error) {
      this.#note(`A4 the archive cannot be read: ${String(error)}`)
    }
  }

  #note(violation: string): void {
    if (this.violations.length < 20) this.violations.push(violation)
  }

  async #readAll(): Promise<Row[]> {
    const all: Row[] = []
    const chains = await chainsOf(this.#store)
    const read = async (key: string) => rowsIn(await this.#files.read(await this.#store.localCopy(key)))
    const dates = await publishedDates(this.#store, this.#table)
    const lists = await Promise.all(dates.map((date) => newestDayList(this.#store, this.#table, date)))
    for (const list of lists) {
      const ofDay = (await Promise.all((list?.files ?? []).map(({ key }) => read(key)))).flat()
      if (new Set(ofDay.map(identityOf)).size < ofDay.length)
        this.#note(`A2 ${list?.date} has a row twice in list ${list?.number}`)
      all.push(...ofDay)
    }
    for (const partition of chains) {
      const chain = new CommitChain(this.#store, partition)
      const path = chainPath(partition)
      for (const { incarnation, nextOffset, files } of await chain.records(await chain.foldedTo())) {
        const end = { incarnation, offset: nextOffset }
        for (const { key, days } of files) {
          const open = Object.keys(days).filter((date) => {
            const list = lists[dates.indexOf(date)]
            return isBefore(list?.through[path] ?? ORIGIN, end)
          })
          if (open.length === 0) continue
          all.push(...(await read(key)).filter((row) => open.includes(dateOf(row))))
        }
      }
    }
    return all
  }

  async #compactAll(): Promise<void> {
    const engine = new PlainEngine(this.disk)
    const merge = engine.mergeIn(this.#store, this.#files)
    await compact(
      {
        store: this.#store,
        clock: this.clock,
        merge,
        readLedger: async () => ({ gaps: new Map(), changed: [] }),
      },
      () => true,
    )
  }
}

function levelsOf(side: string, count: number): string[] {
  return Array.from({ length: count }, (_, i) => `${side} ${i + 1}`)
}

function pairs(count: number): Array<[price: string, quantity: string]> {
  return Array.from({ length: count }, (_, i) => [String(100 + i), '1'])
}
