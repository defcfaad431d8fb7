import { Random } from '../src/sandbox/simulator/market/random.ts'
import type { PartitionState } from '../test/support/kafka-cluster.ts'
import type { Brokers } from './brokers.ts'
import type { ClusterFault } from './faults.ts'
import { type Assignment, electPreferredLeaders, reassign } from './kafka-admin.ts'

/** The incidents of one fault of the cluster. */
export interface ClusterStruck {
  readonly incidents: ReadonlyArray<{ readonly name: string; readonly fromMs: number; readonly toMs: number }>
  /** When all brokers ran again with all replicas in sync. */
  readonly toMs: number
  /** Whether the fault changed nothing. */
  readonly inVain: boolean
}

/** Share of the partitions that one reassignment moves. */
const SHARE = 1 / 3

/**
 * Carries out one fault of the cluster. Resolves when all brokers run and all replicas are in sync
 * again.
 *
 * @param onBegin called when the fault begins
 * @returns null if its turn came after the end of the faults
 */
export async function strikeCluster(
  brokers: Brokers,
  fault: Pick<ClusterFault, 'kind' | 'holdMs' | 'seed'>,
  signal: AbortSignal,
  onBegin: (atMs: number) => void,
): Promise<ClusterStruck | null> {
  let begun = false
  const begin = (atMs = Date.now()) => {
    if (!begun) onBegin(atMs)
    begun = true
    return atMs
  }
  const { kind } = fault
  if (kind === 'rolling restart') return await restartInTurn(brokers, signal, begin)
  if (kind === 'election') {
    const fromMs = begin()
    const changed = await electPreferredLeaders(brokers.addresses)
    const toMs = Date.now()
    return { incidents: [{ name: kind, fromMs, toMs }], toMs, inVain: changed === 0 }
  }
  return await brokers.inTurn(async () => {
    const fromMs = begin()
    if (kind === 'outage') await restartAll(brokers, fault.holdMs, signal)
    else await reassignSome(brokers, new Random(fault.seed), signal)
    const toMs = Date.now()
    return { incidents: [{ name: kind, fromMs, toMs }], toMs, inVain: false }
  }, signal)
}

async function restartInTurn(
  brokers: Brokers,
  signal: AbortSignal,
  onBegin: (atMs: number) => void,
): Promise<ClusterStruck | null> {
  const incidents: Array<ClusterStruck['incidents'][number]> = []
  for (const part of brokers.parts) {
    const struck = await brokers.inTurn(
      async () =>
        performance.now() < brokers.untilMs
          ? await part.strike({ kind: 'restart', holdMs: 0 }, signal, onBegin)
          : null,
      signal,
    )
    if (struck === null) break
    incidents.push({ name: `rolling restart of ${part.label}`, fromMs: struck.fromMs, toMs: struck.toMs })
  }
  if (incidents.length === 0) return null
  await brokers.inSync(signal)
  return { incidents, toMs: Date.now(), inVain: false }
}

async function restartAll(brokers: Brokers, holdMs: number, signal: AbortSignal): Promise<void> {
  await Promise.all(brokers.parts.map((part) => part.strike({ kind: 'restart', holdMs }, signal, () => {})))
}

/**
 * Removes the leader from the replicas of random partitions, then adds it back in another order.
 * With as many brokers as replicas, only this moves data.
 */
async function reassignSome(brokers: Brokers, random: Random, signal: AbortSignal): Promise<void> {
  const partitions = (await brokers.partitions()).filter(({ leader }) => leader >= 0)
  const chosen = shuffled(partitions, random).slice(0, Math.max(1, Math.round(partitions.length * SHARE)))
  for (const plan of reassignments(chosen, random)) {
    await reassign(brokers.addresses, plan)
    await brokers.assigned(plan, signal)
  }
}

/**
 * Returns both steps: first without the leader, then with all replicas and another preferred
 * leader.
 */
export function reassignments(partitions: readonly PartitionState[], random: Random): Assignment[][] {
  const without: Assignment[] = []
  const whole: Assignment[] = []
  for (const { topic, partition, leader, replicas } of partitions) {
    const others = shuffled(
      replicas.filter((node) => node !== leader),
      random,
    )
    const [first, ...rest] = others
    if (first === undefined) continue
    without.push({ topic, partition, replicas: others })
    const last = shuffled([leader, ...rest, first], random)
    const differs = last.join() !== replicas.join()
    whole.push({ topic, partition, replicas: differs ? last : [...last.slice(1), ...last.slice(0, 1)] })
  }
  return [without, whole]
}

function shuffled<Item>(items: readonly Item[], random: Random): Item[] {
  const left = [...items]
  return items.flatMap(() => left.splice(Math.floor(random.next() * left.length), 1))
}
