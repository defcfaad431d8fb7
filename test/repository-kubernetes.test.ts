import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { after, before, test } from 'node:test'
import { parseAllDocuments } from 'yaml'
import { z } from 'zod'
import { DEFINITIONS } from '../src/foundation/settings/definitions.ts'
import { loadSettings } from '../src/foundation/settings/load.ts'
import { type HealthServer, startHealthServer } from '../src/foundation/telemetry/health-server.ts'
import { column } from './support/columns.ts'
import { readCompose } from './support/compose.ts'

const FOLDER = join(resolve(import.meta.dirname, '..'), 'k8s')

const PROBE = z.object({
  httpGet: z.object({ path: z.string(), port: z.literal('http') }).optional(),
  tcpSocket: z.object({ port: z.literal('http') }).optional(),
})
const CONTAINER = z.object({
  name: z.string(),
  image: z.string(),
  args: z.array(z.string()),
  env: z
    .array(z.object({ name: z.string(), value: z.string().optional(), valueFrom: z.unknown().optional() }))
    .default([]),
  envFrom: z.array(
    z.union([
      z.object({ configMapRef: z.object({ name: z.literal('tapeline-settings') }) }),
      z.object({ secretRef: z.object({ name: z.string(), optional: z.literal(true) }) }),
    ]),
  ),
  ports: z.array(z.object({ name: z.literal('http'), containerPort: z.int() })).default([]),
  startupProbe: PROBE.optional(),
  livenessProbe: PROBE.optional(),
  readinessProbe: PROBE.optional(),
  securityContext: z.object({
    allowPrivilegeEscalation: z.literal(false),
    readOnlyRootFilesystem: z.literal(true),
    capabilities: z.object({ drop: z.tuple([z.literal('ALL')]) }),
  }),
  resources: z.object({
    requests: z.object({ cpu: z.string(), memory: z.string() }),
    limits: z.object({ memory: z.string() }),
  }),
  volumeMounts: z.array(z.object({ name: z.string(), mountPath: z.string() })),
})
const POD = z.object({
  enableServiceLinks: z.literal(false),
  automountServiceAccountToken: z.literal(false),
  terminationGracePeriodSeconds: z.int().optional(),
  securityContext: z.object({
    runAsNonRoot: z.literal(true),
    runAsUser: z.literal(1000),
    seccompProfile: z.object({ type: z.literal('RuntimeDefault') }),
  }),
  containers: z.tuple([CONTAINER]),
  volumes: z.array(z.object({ name: z.string(), secret: z.object({ secretName: z.string() }).optional() })),
})
const LABELS = z.record(z.string(), z.string())
const WORKLOAD = z.object({
  kind: z.enum(['Deployment', 'StatefulSet', 'Job']),
  metadata: z.object({ name: z.string() }),
  spec: z.object({
    replicas: z.int().optional(),
    serviceName: z.string().optional(),
    podManagementPolicy: z.string().optional(),
    updateStrategy: z.object({ type: z.string() }).optional(),
    strategy: z
      .object({ rollingUpdate: z.object({ maxSurge: z.int(), maxUnavailable: z.int() }) })
      .optional(),
    selector: z.object({ matchLabels: LABELS }).optional(),
    volumeClaimTemplates: z
      .array(
        z.object({
          metadata: z.object({ name: z.string() }),
          spec: z.object({ accessModes: z.array(z.string()) }),
        }),
      )
      .optional(),
    template: z.object({ metadata: z.object({ labels: LABELS }), spec: POD }),
  }),
})
const SELECTING = z.object({
  kind: z.enum(['Service', 'PodDisruptionBudget']),
  metadata: z.object({ name: z.string() }),
  spec: z.object({
    selector: z.union([z.object({ matchLabels: LABELS }), LABELS]),
    ports: z.array(z.object({ port: z.int() })).default([]),
    maxUnavailable: z.int().optional(),
    clusterIP: z.string().optional(),
  }),
})
const SETTINGS = z.object({ kind: z.literal('ConfigMap'), data: z.record(z.string(), z.string()) })
const KUSTOMIZATION = z.object({
  resources: z.array(z.string()),
  images: z.array(z.object({ name: z.string(), newTag: z.string() })),
})

const VARIANT = z.object({
  resources: z.array(z.string()),
  patches: z.array(z.object({ target: z.object({ kind: z.string(), name: z.string() }), patch: z.string() })),
})

/** The base, and the archive, which `k8s/archive` adds. */
const documents = globSync(['base/*.yaml', 'archive/archive.yaml'], { cwd: FOLDER }).flatMap((file) =>
  parseAllDocuments(readFileSync(join(FOLDER, file), 'utf8')).map((document) => {
    assert.deepEqual(document.errors, [], file)
    const value: unknown = document.toJS()
    return { file, value, kind: String(Reflect.get(Object(value), 'kind')) }
  }),
)
const ofKinds = (...kinds: string[]) =>
  documents.filter(({ kind }) => kinds.includes(kind)).map(({ value }) => value)
const workloads = ofKinds('Deployment', 'StatefulSet', 'Job').map((value) => WORKLOAD.parse(value))
const selecting = ofKinds('Service', 'PodDisruptionBudget').map((value) => SELECTING.parse(value))
const settings = SETTINGS.parse(ofKinds('ConfigMap')[0]).data
const workload = (name: string) =>
  workloads.find(({ metadata }) => metadata.name === `tapeline-${name}`) ??
  assert.fail(`${name} does not exist`)
const containerOf = ({ spec }: z.infer<typeof WORKLOAD>) => spec.template.spec.containers[0]

let http: HealthServer

before(async () => {
  http = await startHealthServer(
    { host: '127.0.0.1', port: 0, portSetting: 'INGEST_PORT' },
    { readiness: () => ({ ready: true, reason: '' }), status: () => ({}), metrics: async () => '' },
  )
})

after(() => http.close())

test('the manifests contain every part, in a form that `kubectl apply` accepts as a whole', () => {
  assert.deepEqual(workloads.map(({ kind, metadata }) => `${kind} ${metadata.name}`).toSorted(), [
    'Deployment tapeline-consumer',
    'Deployment tapeline-dashboard',
    'Job tapeline-migrate',
    'Job tapeline-topics',
    'StatefulSet tapeline-archive',
    'StatefulSet tapeline-ingestion',
  ])
  const { resources } = KUSTOMIZATION.parse(ofKinds('Kustomization')[0])
  const files = [...new Set(documents.map(({ file }) => basename(file)))].filter(
    (file) => file !== 'kustomization.yaml' && file !== 'archive.yaml',
  )
  assert.deepEqual(resources.toSorted(), files.toSorted())
})

test('each part runs the image and the port of the compose file', () => {
  const { services } = readCompose('docker-compose.yml')
  const { images } = KUSTOMIZATION.parse(ofKinds('Kustomization')[0])
  for (const [name, service, port] of [
    ['ingestion', 'ingestion', 'INGEST_PORT'],
    ['consumer', 'consumer', 'CONSUMER_PORT'],
    ['dashboard', 'dashboard', 'DASHBOARD_PORT'],
    ['archive', 'archive', 'ARCHIVE_PORT'],
    ['topics', 'kafka-init', ''],
    ['migrate', 'consumer', ''],
  ] as const) {
    const { image, ports, args } = containerOf(workload(name))
    assert.equal(image, services[service]?.image, name)
    assert.deepEqual(images, [{ name: 'tapeline', newTag: 'local' }])
    if (name !== 'migrate') assert.deepEqual(args, services[service]?.command, name)
    if (port === '') continue
    assert.deepEqual(column(ports, 'containerPort'), [services[service]?.environment[port]], name)
    assert.equal(settings[port], String(services[service]?.environment[port]))
  }
})

test('probes use endpoints that exist, and readiness never restarts a pod', async () => {
  for (const name of ['ingestion', 'consumer', 'archive']) {
    const { livenessProbe, readinessProbe, startupProbe } = containerOf(workload(name))
    assert.equal(livenessProbe?.httpGet?.path, '/livez', name)
    assert.equal(startupProbe?.httpGet?.path, '/livez', name)
    assert.equal(readinessProbe?.httpGet?.path, '/readyz', name)
  }
  for (const path of ['/livez', '/readyz'])
    assert.equal((await fetch(`${http.url}${path}`)).status, 200, path)
  assert.equal((await fetch(`${http.url}/health`)).status, 404)
})

test('a shard of ingestion never overlaps itself, and every symbol has one', () => {
  const { kind, spec } = workload('ingestion')
  const how = [kind, spec.podManagementPolicy, spec.updateStrategy?.type]
  assert.deepEqual(how, ['StatefulSet', 'Parallel', 'RollingUpdate'])
  const { env } = containerOf(workload('ingestion'))
  const index = env.findIndex(({ name }) => name === 'POD_INDEX')
  assert.match(JSON.stringify(env[index]?.valueFrom), /metadata\.labels\['apps\.kubernetes\.io\/pod-index'\]/)
  const shard = env.findIndex(({ name }) => name === 'SHARD')
  assert.ok(index < shard, 'a variable may only refer to earlier ones')
  assert.equal(env[shard]?.value, `$(POD_INDEX)/${spec.replicas}`)
  const urls = containerOf(workload('dashboard'))
    .env.find(({ name }) => name === 'INGEST_URLS')
    ?.value?.split(',')
  const wanted = Array.from(
    { length: spec.replicas ?? 0 },
    (_, i) => `http://tapeline-ingestion-${i}.${spec.serviceName}:8080`,
  )
  assert.deepEqual(urls, wanted)
  assert.deepEqual(workload('consumer').spec.strategy?.rollingUpdate, { maxSurge: 0, maxUnavailable: 1 })
  for (const name of ['ingestion', 'consumer', 'archive'])
    assert.ok((workload(name).spec.template.spec.terminationGracePeriodSeconds ?? 0) >= 15, name)
})

test('services and disruption budgets select the intended pods', () => {
  const labels = new Map(
    workloads.map(({ metadata, spec }) => [metadata.name, spec.template.metadata.labels]),
  )
  for (const { metadata, spec } of selecting) {
    const selector = 'matchLabels' in spec.selector ? spec.selector.matchLabels : spec.selector
    assert.deepEqual(selector, labels.get(metadata.name), metadata.name)
  }
  for (const { metadata, spec } of workloads)
    if (spec.selector !== undefined) assert.deepEqual(spec.selector.matchLabels, labels.get(metadata.name))
  const budgets = ofKinds('PodDisruptionBudget').map((value) => SELECTING.parse(value))
  assert.deepEqual(budgets.map(({ metadata, spec }) => [metadata.name, spec.maxUnavailable]).toSorted(), [
    ['tapeline-consumer', 1],
    ['tapeline-ingestion', 1],
  ])
  const headless = selecting.find(
    ({ kind, metadata }) => kind === 'Service' && metadata.name === workload('ingestion').spec.serviceName,
  )
  assert.equal(headless?.spec.clusterIP, 'None')
})

test('the archive has a volume that outlives its pod, and the variants name what they change', () => {
  const { template, volumeClaimTemplates } = workload('archive').spec
  const [volume] = volumeClaimTemplates ?? []
  assert.deepEqual(volume?.spec.accessModes, ['ReadWriteOnce'])
  const [container] = template.spec.containers
  const mount = container.volumeMounts.find(({ name }) => name === volume?.metadata.name)
  assert.equal(container.env.find(({ name }) => name === 'ARCHIVE_URL')?.value, mount?.mountPath)
  for (const [folder, expected] of [
    ['archive', ['../base', 'archive.yaml']],
    ['archive-only', ['../archive']],
  ] as const) {
    const [document] = parseAllDocuments(readFileSync(join(FOLDER, folder, 'kustomization.yaml'), 'utf8'))
    const { resources, patches } = VARIANT.parse(document?.toJS())
    assert.deepEqual(resources, expected)
    const known = [...workloads, ...selecting].map(({ kind, metadata }) => `${kind} ${metadata.name}`)
    for (const { target, patch } of patches) {
      assert.ok(known.includes(`${target.kind} ${target.name}`), target.name)
      const [patched] = parseAllDocuments(patch)
      assert.deepEqual(patched?.errors, [])
      const { kind, metadata } = z
        .object({ kind: z.string(), metadata: z.object({ name: z.string() }) })
        .parse(patched?.toJS())
      assert.deepEqual([kind, metadata.name], [target.kind, target.name])
    }
  }
})

test('every part starts with valid settings, and has its password from a file of a secret', () => {
  const others = ['POD_INDEX', 'INGEST_URLS', 'CONSUMER_URLS']
  for (const one of workloads) {
    const { name } = one.metadata
    const container = containerOf(one)
    const own = Object.fromEntries(
      container.env.map(({ name, value = '' }) => [name, value.replace('$(POD_INDEX)', '0')]),
    )
    const names = [...Object.keys(settings), ...Object.keys(own)].map((each) => each.replace(/_FILE$/, ''))
    const unknown = names.filter((each) => !(each in DEFINITIONS || others.includes(each)))
    assert.deepEqual(unknown, [], name)
    const { DATABASE_URL_FILE: file, ...given } = { ...settings, ...own }
    loadSettings(Object.fromEntries(Object.entries(given).filter(([each]) => !others.includes(each))), {
      cwd: FOLDER,
    })
    const mount = container.volumeMounts.find(({ name }) => name === 'database')
    assert.equal(file === undefined, mount === undefined, name)
    if (mount === undefined) continue
    assert.equal(file, `${mount.mountPath}/database_url`)
    const secret =
      one.spec.template.spec.volumes.find(({ name }) => name === 'database')?.secret?.secretName ?? ''
    assert.ok(
      readFileSync(join(FOLDER, '../docs/kubernetes.md'), 'utf8').includes(secret),
      `${secret} is not explained`,
    )
  }
  assert.deepEqual(ofKinds('Secret'), [], 'the repository contains no secret')
})
