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
export type PartitionState = Awaited<ReturnType<typeof describePartitions>>[number]

/** Three brokers that are also controllers. */
export type KafkaCluster = Awaited<ReturnType<typeof startKafkaCluster>>

/** The nodes of a cluster, none of which runs yet. */
export type ClusterLayout = Awaited<ReturnType<typeof layOutCluster>>

/** Chooses the ports of three nodes, numbered from 1, with their data below `folder`. */
export async function layOutCluster(distributionDir: string, folder: string) {
  const clusterId = randomBytes(16).toString('base64url')
  const nodes = Array.from({ length: NODES }, (_, i) => i + 1)
  const drawn = new Set<number>()
  while (drawn.size < 2 * NODES) drawn.add(await freePort())
  const ports = [...drawn]
  const portsOf = (id: number) => ({ broker: ports[id - 1] ?? 0, controller: ports[NODES + id - 1] ?? 0 })
  const voters = nodes.map((id) => `${id}@127.0.0.1:${portsOf(id).controller}`).join()
  return {
    nodes,
    /** For `KAFKA_BROKERS`. */
    brokers: nodes.map((id) => `127.0.0.1:${portsOf(id).broker}`).join(),
    /** Starts a node with its data. At the first start a majority must start together. */
    start(id: number, signal?: AbortSignal): Promise<KafkaBroker> {
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

/** Starts a cluster without data; ready when every node answers and knows the group coordinators. */
export async function startKafkaCluster() {
  const folder = await mkdtemp(join(tmpdir(), 'kafka-cluster-'))
  const distributionDir = await ensureKafkaDistribution({ cacheDir: CACHE_DIRECTORY })
  const { nodes, brokers, start: startNode } = await layOutCluster(distributionDir, folder)
  const running = new Map<number, KafkaBroker>()
  const start = async (id: number) => {
    running.set(id, await startNode(id))
  }
  /** Sends SIGKILL; resolves when the node has exited. */
  const kill = async (id: number) => {
    const broker = running.get(id)
    running.delete(id)
    broker?.kill()
    await broker?.exited
  }
  /** Stops all nodes and removes the data. */
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
  /** Describes every partition of these topics, from a broker that runs. */
  const partitions = (topics: readonly string[]) => {
    const up = [...running.values()].map((broker) => broker.brokers)
    return describePartitions(up, topics)
  }
  return { brokers, partitions, kill, restart: start, stop }
}

/** Requests every partition of these topics from the brokers, in this order. */
function describePartitions(brokers: string[], topics: readonly string[]) {
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
