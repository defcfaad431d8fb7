import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type KafkaBroker, startKafkaBroker } from '../../src/sandbox/kafka-broker/kafka-broker.ts'
import { ensureKafkaDistribution } from '../../src/sandbox/kafka-broker/kafka-distribution.ts'
import { freePort } from '../../src/sandbox/processes/free-ports.ts'
import { CACHE_DIRECTORY } from './bounded-run.ts'
import { brokerProperties, readCluster } from './compose.ts'
import { withAdmin } from './kafka-clients.ts'

const NODES = 3
/** Small, since three brokers share a machine with everything else. */
const HEAP_MEBIBYTES = 256

/** Settings of a node in docker/docker-compose.cluster.yml, without names, ports and folders. */
function replicated(): Record<string, string> {
  const { kafka } = readCluster().services
  const properties = kafka === undefined ? [] : Object.entries(brokerProperties(kafka))
  const own = /^(node\.id|controller\.quorum\.voters|(advertised\.)?listeners|log\.dirs)$/
  return Object.fromEntries(properties.filter(([name]) => !own.test(name)))
}

/** One partition, as the cluster describes it. */
export interface PartitionState {
  readonly topic: string
  readonly partition: number
  readonly leader: number
  readonly replicas: readonly number[]
  readonly inSync: readonly number[]
}

/** Three brokers that are also controllers. */
export interface KafkaCluster {
  /** For `KAFKA_BROKERS`. */
  readonly brokers: string
  /** Describes every partition of these topics, from a broker that runs. */
  partitions(topics: readonly string[]): Promise<PartitionState[]>
  /** Sends SIGKILL; resolves when the node has exited. */
  kill(node: number): Promise<void>
  /** Restarts a killed node with its data. */
  restart(node: number): Promise<void>
  /** Stops all nodes and removes the data. */
  stop(): Promise<void>
}

/** The nodes of a cluster, none of which runs yet. */
export interface ClusterLayout {
  /** From 1. */
  readonly nodes: readonly number[]
  /** For `KAFKA_BROKERS`. */
  readonly brokers: string
  /** Starts a node with its data. At the first start a majority must start together. */
  start(node: number, signal?: AbortSignal): Promise<KafkaBroker>
}

/** Chooses the ports of three nodes with their data below `folder`. */
export async function layOutCluster(distributionDir: string, folder: string): Promise<ClusterLayout> {
  const clusterId = randomBytes(16).toString('base64url')
  const nodes = Array.from({ length: NODES }, (_, i) => i + 1)
  const ports = new Map<number, { broker: number; controller: number }>()
  const drawn = new Set<number>()
  while (drawn.size < 2 * NODES) drawn.add(await freePort())
  const free = [...drawn]
  for (const [i, id] of nodes.entries())
    ports.set(id, { broker: free[2 * i] ?? 0, controller: free[2 * i + 1] ?? 0 })
  const portsOf = (id: number) => ports.get(id) ?? { broker: 0, controller: 0 }
  const voters = nodes.map((id) => `${id}@127.0.0.1:${portsOf(id).controller}`).join()
  return {
    nodes,
    brokers: nodes.map((id) => `127.0.0.1:${portsOf(id).broker}`).join(),
    start(id, signal) {
      const { broker, controller } = portsOf(id)
      return startKafkaBroker({
        clusterId,
        distributionDir,
        dataDir: join(folder, `node-${id}`),
        port: broker,
        heapMebibytes: HEAP_MEBIBYTES,
        ...(signal === undefined ? {} : { signal }),
        extraProperties: {
          ...replicated(),
          'node.id': String(id),
          'controller.quorum.voters': voters,
          listeners: `PLAINTEXT://127.0.0.1:${broker},CONTROLLER://127.0.0.1:${controller}`,
        },
      })
    },
  }
}

/**
 * Starts a cluster without data; ready when every node answers and knows the group coordinators.
 */
export async function startKafkaCluster(): Promise<KafkaCluster> {
  const folder = await mkdtemp(join(tmpdir(), 'kafka-cluster-'))
  const distributionDir = await ensureKafkaDistribution({ cacheDir: CACHE_DIRECTORY })
  const { nodes, brokers, start: startNode } = await layOutCluster(distributionDir, folder)
  const running = new Map<number, KafkaBroker>()
  const start = async (id: number) => {
    running.set(id, await startNode(id))
  }
  const kill = async (id: number) => {
    const broker = running.get(id)
    running.delete(id)
    broker?.kill()
    await broker?.exited
  }
  const stop = async () => {
    await Promise.all(nodes.map(kill))
    await rm(folder, { recursive: true, force: true })
  }
  const started = await Promise.allSettled(nodes.map(start))
  const failure = started.find((one) => one.status === 'rejected')
  if (failure !== undefined) {
    await stop()
    throw failure.reason
  }
  return {
    brokers,
    partitions: (topics) =>
      describePartitions(
        [...running.values()].map((broker) => broker.brokers),
        topics,
      ),
    kill,
    restart: start,
    stop,
  }
}

/** Requests every partition of these topics from the brokers, in this order. */
function describePartitions(brokers: string[], topics: readonly string[]): Promise<PartitionState[]> {
  return withAdmin(brokers, async (admin) => {
    const metadata = await admin.metadata({ topics: [...topics], forceUpdate: true })
    return [...metadata.topics].flatMap(([topic, { partitions }]) =>
      Object.entries(partitions).map(([partition, { leader, replicas, isr }]) => ({
        topic,
        partition: Number(partition),
        leader,
        replicas,
        inSync: isr,
      })),
    )
  })
}
