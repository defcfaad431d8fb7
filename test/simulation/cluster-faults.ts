import type { Random } from '../../src/sandbox/simulator/market/random.ts'
import { ERROR } from './cluster/partition.ts'
import { type FaultKind, fault, MINUTE, SECOND } from './fault-kind.ts'
import type { World } from './world.ts'

/** Brokers tolerate times up to an hour ahead of theirs. */
const BEHIND_MS = -2 * 60 * MINUTE

function anyNode({ kafka }: World, random: Random): number {
  return random.pick([...kafka.cluster.brokers.keys()])
}

function anyPartition({ kafka }: World, random: Random) {
  return random.pick([...kafka.cluster.partitions.values()])
}

/** Faults of a Kafka cluster. */
export const CLUSTER_FAULTS: readonly FaultKind[] = [
  fault('broker killed', 4, (world, random) =>
    world.kafka.cluster.disturb(anyNode(world, random), 'down', random.between(1, 120) * SECOND),
  ),
  fault('broker hangs', 3, (world, random) =>
    world.kafka.cluster.disturb(anyNode(world, random), 'hung', random.between(1, 60) * SECOND),
  ),
  fault('broker cut off from the others', 3, (world, random) =>
    world.kafka.cluster.disturb(anyNode(world, random), 'cut off', random.between(5, 120) * SECOND),
  ),
  fault('brokers restarted one after the other', 1, (world, random) => {
    const { cluster } = world.kafka
    for (const [at, node] of [...cluster.brokers.keys()].entries())
      world.clock.schedule(at * 30 * SECOND, () =>
        cluster.disturb(node, 'down', random.between(3, 15) * SECOND),
      )
  }),
  fault('preferred leaders elected', 3, ({ kafka }) => kafka.cluster.electPreferred()),
  fault('partitions reassigned', 3, (world, random) => {
    for (let left = random.whole(1, 4); left > 0; left--)
      world.kafka.cluster.reassign(anyPartition(world, random))
  }),
  fault('answers of a broker lost', 3, (world, random) =>
    world.kafka.cluster.loseAnswers(anyNode(world, random), random.whole(1, 6), 10 * SECOND),
  ),
  fault('partition refused', 2, (world, random) => {
    const error = random.pick([ERROR.TOPIC_AUTHORIZATION_FAILED, ERROR.KAFKA_STORAGE_ERROR])
    world.kafka.cluster.refuse([anyPartition(world, random).name], error, random.between(1, 60) * SECOND)
  }),
  fault('clock of a broker late', 2, (world, random) =>
    world.kafka.cluster.setClock(anyNode(world, random), BEHIND_MS, random.between(1, 30) * SECOND),
  ),
  fault('broker forgets producers', 2, (world, random) => anyPartition(world, random).forgetProducers()),
  fault('tail of a partition lost', 2, (world, random) => {
    world.kafka.cluster.electUnclean(anyPartition(world, random), random.whole(1, 5))
  }),
]
