import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { parse } from 'yaml'
import { z } from 'zod'

export const DOCKER = join(resolve(import.meta.dirname, '../..'), 'docker')

const SCALAR = z.union([z.string(), z.number(), z.boolean(), z.null()])

/** A service of a compose file, with the fields that tests use. */
const SERVICE = z.object({
  image: z.string().optional(),
  build: z.unknown().optional(),
  command: z.array(SCALAR).optional(),
  profiles: z.array(z.string()).default([]),
  environment: z.record(z.string(), SCALAR).default({}),
  ports: z.array(z.string()).default([]),
  volumes: z.array(z.string()).default([]),
  secrets: z.array(z.string()).default([]),
  depends_on: z.record(z.string(), z.object({ condition: z.string() })).default({}),
  healthcheck: z
    .object({ test: z.union([z.string(), z.array(z.string())]).optional(), disable: z.boolean().optional() })
    .optional(),
  restart: z.string().optional(),
  read_only: z.boolean().default(false),
  cap_drop: z.array(z.string()).default([]),
  cap_add: z.array(z.string()).default([]),
  security_opt: z.array(z.string()).default([]),
  mem_limit: z.string().optional(),
  cpus: z.number().optional(),
  pids_limit: z.number().optional(),
  privileged: z.boolean().default(false),
  user: z.string().optional(),
})

const COMPOSE = z.object({
  services: z.record(z.string(), SERVICE),
  secrets: z.record(z.string(), z.object({ file: z.string() })).default({}),
  volumes: z.record(z.string(), z.null()).default({}),
})

export type ComposeFile = z.infer<typeof COMPOSE>
export type ComposeService = z.infer<typeof SERVICE>

/** Reads a compose file of `docker`, with YAML merges applied and variables unexpanded. */
export function readCompose(name: string): ComposeFile {
  return COMPOSE.parse(parse(readFileSync(join(DOCKER, name), 'utf8'), { merge: true }))
}

/**
 * The single broker's file with the cluster's on top: environments and mounts are merged, as far as
 * tests use them.
 */
export function readCluster(): ComposeFile {
  const base = readCompose('docker-compose.yml')
  const over = readCompose('docker-compose.cluster.yml')
  const services = { ...base.services }
  for (const [name, service] of Object.entries(over.services)) {
    const below = base.services[name]
    services[name] =
      below === undefined
        ? service
        : {
            ...below,
            environment: { ...below.environment, ...service.environment },
            depends_on: { ...below.depends_on, ...service.depends_on },
            volumes: [...mountsByTarget([...below.volumes, ...service.volumes]).values()],
          }
  }
  return { ...base, services, volumes: { ...base.volumes, ...over.volumes } }
}

/** Merges mounts like docker-compose: the last mount at a path counts. */
export function mountsByTarget(volumes: readonly string[]): Map<string, string> {
  return new Map(volumes.map((volume) => [volume.split(':')[1] ?? '', volume]))
}

/**
 * The properties that Kafka's image derives from an environment: `KAFKA_LOG_DIRS` is `log.dirs`.
 */
export function brokerProperties({ environment }: ComposeService): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment)
      .filter(([name]) => name.startsWith('KAFKA_') && name !== 'KAFKA_HEAP_OPTS')
      .map(([name, value]) => [
        name.slice('KAFKA_'.length).toLowerCase().replaceAll('_', '.'),
        String(value),
      ]),
  )
}
