import type {
  GroupClient,
  GroupClientEvents,
  OffsetToCommit,
} from '../../src/foundation/consumption/group-client.ts'
import { keyOf, type TopicPartition } from '../../src/foundation/kafka/partition.ts'
import type { Clock } from '../../src/foundation/runtime/clock.ts'
import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import type { LifeClock } from '../support/life-clock.ts'

const SESSION_MS = 10_000
const HEARTBEAT_MS = 2000
const REBALANCE_MS = 15_000

interface Member {
  readonly id: number
  readonly life: LifeClock
  readonly events: GroupClientEvents
  /** The generation of its last join, at the broker. */
  generation: number
  /** The generation it knows, which it names in its commits. */
  knownGeneration: number
  lastBeatMs: number
  /** Cut off from the broker until then, in both directions. */
  isolatedUntilMs: number
  hasJoined: boolean
  joined: (() => void) | null
}

/** The broker's side of a group: members, generations, sessions, accepted or refused commits. */
export class MemoryGroup {
  readonly committed = new Map<string, number>()
  /** Commits of partitions that the member did not own in the named generation. */
  readonly foreignCommits: string[] = []
  readonly refusedCommits = { count: 0 }
  generation = 0
  isAway = false
  /** Called for every accepted commit. */
  onCommit: (offset: OffsetToCommit) => void = () => {}
  /** A defect: every member gets all partitions. */
  claimsAll = false
  readonly #clock: Clock
  readonly #random: Random
  readonly #partitions: readonly TopicPartition[]
  #members: Member[] = []
  #assigned = new Map<number, ReadonlySet<string>>()
  #rebalanceEndsMs: number | null = null
  #nextId = 1

  constructor(clock: Clock, random: Random, partitions: readonly TopicPartition[]) {
    this.#clock = clock
    this.#random = random
    this.#partitions = partitions
    this.#tick()
  }

  get members(): number {
    return this.#members.length
  }

  /** Cuts a member off for a while. */
  isolate(ms: number): boolean {
    const member = this.#random.pickIfAny(this.#members)
    if (member === undefined) return false
    member.isolatedUntilMs = this.#clock.monotonicMs() + ms
    return true
  }

  open(life: LifeClock): GroupClient {
    let member: Member | null = null
    const reach = async () => {
      await life.wait(this.#random.between(1, 20))
      if (this.isAway || member === null || this.#isIsolated(member))
        throw new Error('The coordinator is away')
      return member
    }
    return {
      join: async (events) => {
        await life.wait(this.#random.between(1, 50))
        if (this.isAway) throw new Error('The coordinator is away')
        const nowMs = this.#clock.monotonicMs()
        const one: Member = {
          ...{ id: this.#nextId++, life, events, generation: -1, knownGeneration: -1 },
          ...{ lastBeatMs: nowMs, isolatedUntilMs: 0, hasJoined: true, joined: null },
        }
        member = one
        this.#members.push(one)
        this.#beginRebalance()
        await new Promise<void>((resolve) => {
          one.joined = resolve
        })
      },
      commit: async (offsets) => {
        const named = member?.knownGeneration ?? -1
        this.#commit(await reach(), named, offsets)
      },
      hasCommits: async () => {
        await reach()
        return this.committed.size > 0
      },
      close: async () => {
        const one = member
        if (one === null || this.isAway || this.#isIsolated(one)) return
        this.#members = this.#members.filter((other) => other !== one)
        this.#beginRebalance()
      },
    }
  }

  #commit(member: Member, named: number, offsets: readonly OffsetToCommit[]): void {
    if (!this.#members.includes(member) || named !== this.generation) {
      this.refusedCommits.count++
      throw new Error('ILLEGAL_GENERATION')
    }
    const ours = this.#assigned.get(member.id)
    const isStart = this.committed.size === 0
    for (const offset of offsets) {
      const key = keyOf(offset)
      if (!isStart && ours?.has(key) !== true && !this.#isStartPosition(offset))
        this.foreignCommits.push(`${key} at ${offset.nextOffset}`)
      this.committed.set(key, offset.nextOffset)
      this.onCommit(offset)
    }
  }

  /** Two members that start at the same time may both commit the start positions. */
  #isStartPosition({ nextOffset }: OffsetToCommit): boolean {
    return nextOffset === 0
  }

  #isIsolated(member: Member): boolean {
    return member.isolatedUntilMs > this.#clock.monotonicMs()
  }

  #beginRebalance(): void {
    this.#rebalanceEndsMs ??= this.#clock.monotonicMs() + REBALANCE_MS
    for (const member of this.#members) if (member.generation === this.generation) member.hasJoined = false
  }

  /** Advances heartbeats, sessions and the end of a rebalance. */
  #tick(): void {
    this.#clock.schedule(this.#random.between(200, 400), () => {
      const nowMs = this.#clock.monotonicMs()
      if (!this.isAway) this.#beat(nowMs)
      this.#tick()
    })
  }

  #beat(nowMs: number): void {
    const before = this.#members.length
    for (const member of this.#members) {
      if (!member.life.isAlive || this.#isIsolated(member)) continue
      if (nowMs - member.lastBeatMs < HEARTBEAT_MS) continue
      member.lastBeatMs = nowMs
      if (this.#rebalanceEndsMs !== null && !member.hasJoined) {
        member.events.onRebalance()
        member.hasJoined = true
      }
    }
    const expired = this.#members.filter(({ lastBeatMs }) => nowMs - lastBeatMs > SESSION_MS)
    this.#members = this.#members.filter((member) => !expired.includes(member))
    for (const member of expired) this.#tellWhenReachable(member)
    if (this.#members.length < before) this.#beginRebalance()
    const due = this.#rebalanceEndsMs
    if (due === null || this.#members.length === 0) return
    if (nowMs < due && !this.#members.every(({ hasJoined }) => hasJoined)) return
    const late = this.#members.filter(({ hasJoined }) => !hasJoined)
    this.#members = this.#members.filter(({ hasJoined }) => hasJoined)
    for (const member of late) this.#tellWhenReachable(member)
    this.#rebalanceEndsMs = null
    this.#divide()
  }

  #tellWhenReachable(member: Member): void {
    const waitMs = Math.max(0, member.isolatedUntilMs - this.#clock.monotonicMs())
    member.life.schedule(waitMs + this.#random.between(0, HEARTBEAT_MS), () => {
      member.events.onEnded(new Error('UNKNOWN_MEMBER_ID'))
    })
  }

  #divide(): void {
    this.generation++
    this.#assigned = new Map()
    const { generation } = this
    for (const [i, member] of this.#members.entries()) {
      const mine = this.#partitions.filter((_, index) => index % this.#members.length === i)
      member.generation = generation
      this.#assigned.set(member.id, new Set(mine.map(keyOf)))
      const told = this.claimsAll ? this.#partitions : mine
      // The answer to the join may take a while to arrive.
      member.life.schedule(this.#random.between(1, 300), () => {
        if (member.generation !== generation) return
        member.knownGeneration = generation
        member.joined?.()
        member.joined = null
        member.events.onJoined(generation, told)
      })
    }
  }
}
