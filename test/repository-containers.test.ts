import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { parse } from 'yaml'
import { z } from 'zod'
import { consumerConfig } from '../src/consumer/config.ts'
import { NODE_ENVIRONMENT } from '../src/foundation/runtime/node-flags.ts'
import { DEFINITIONS } from '../src/foundation/settings/definitions.ts'
import { loadSettings, type Settings } from '../src/foundation/settings/load.ts'
import { NO_DATABASE } from '../src/foundation/settings/parsers.ts'
import { startHealthServer } from '../src/foundation/telemetry/health-server.ts'
import { ingestionConfig } from '../src/ingestion/config.ts'
import { dashboardConfig } from '../src/tools/dashboard/observer.ts'
import { type ComposeService, DOCKER, mountsByTarget, readCluster, readCompose } from './support/compose.ts'

const FILES = { 'docker-compose.yml': readCompose('docker-compose.yml'), 'with the cluster': readCluster() }
const OPTIONAL = ['archive', 'dashboard-archive', 'grafana', 'kafka-ui', 'node-exporter', 'prometheus']
/** Their images write into their file system, as the compose file notes. */
const WRITABLE = /^(kafka(-\d)?|timescaledb)$/

const GROUPS = z.array(z.strictObject({ targets: z.array(z.string()) }))
/** Only static names: any other service discovery is rejected. */
const PROMETHEUS = z.object({
  scrape_configs: z.array(
    z.strictObject({
      job_name: z.string(),
      static_configs: GROUPS.default([]),
      file_sd_configs: z.array(z.strictObject({ files: z.array(z.string()) })).default([]),
    }),
  ),
})

/** The settings of a service when neither the shell nor the file sets any. */
function given(environment: ComposeService['environment']): Settings {
  const fixed = Object.entries(environment).filter(([name, value]) => value !== null && name in DEFINITIONS)
  return loadSettings(Object.fromEntries(fixed.map(([name, value]) => [name, String(value)])), {
    cwd: DOCKER,
  })
}

/** Runs a check on every service of both files. */
function everyService(check: (service: ComposeService, name: string, file: string) => void): void {
  for (const [file, { services }] of Object.entries(FILES)) {
    for (const [name, service] of Object.entries(services)) check(service, name, `${name} of ${file}`)
  }
}

test('every image has an exact tag, so that later starts use the same images', () => {
  everyService(({ image = '', build }, name, where) => {
    if (image === 'tapeline:local') return
    assert.match(image, /^[\w./-]+:v?\d+\.\d+\.\d+(-pg\d+)?$/, where)
    assert.equal(build, undefined, where)
    assert.equal(image.startsWith('apache/kafka:'), /^kafka(-\d)?$/.test(name), where)
  })
})

test('the launcher and the image start Node as the code starts further processes', () => {
  const [launcher, image] = [join(DOCKER, '../bin/tapeline'), join(DOCKER, 'Dockerfile')].map((path) =>
    readFileSync(path, 'utf8'),
  )
  const { MALLOC_ARENA_MAX, NODE_OPTIONS } = NODE_ENVIRONMENT
  assert.ok(launcher?.includes(`\nexport MALLOC_ARENA_MAX="\${MALLOC_ARENA_MAX:-${MALLOC_ARENA_MAX}}"\n`))
  assert.ok(launcher?.includes(`\nexport NODE_OPTIONS="${NODE_OPTIONS} \${NODE_OPTIONS:-}"\n`))
  assert.ok(
    image?.includes(`\nENV MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX}\nENV NODE_OPTIONS="${NODE_OPTIONS}"\n`),
  )
})

test('no container can gain rights, use the whole machine, or write where it need not', () => {
  everyService((service, name, where) => {
    assert.deepEqual(service.cap_drop, ['ALL'], where)
    assert.deepEqual(service.security_opt, ['no-new-privileges:true'], where)
    assert.deepEqual([service.privileged, service.user === 'root'], [false, false], where)
    assert.ok(service.cap_add.length === 0 || name === 'timescaledb', where)
    assert.ok(
      service.mem_limit !== undefined && service.cpus !== undefined && service.pids_limit !== undefined,
      where,
    )
    assert.equal(service.read_only, !WRITABLE.test(name), where)
  })
  assert.match(readFileSync(join(DOCKER, 'Dockerfile'), 'utf8'), /^USER node$/m)
})

test('nothing starts before its dependencies, and an unresponsive part is detected', () => {
  everyService(({ depends_on, healthcheck, image, restart }, name, where) => {
    const { services } = FILES['with the cluster']
    for (const [needed, { condition }] of Object.entries(depends_on)) {
      const other = services[needed] ?? assert.fail(`${where} depends on ${needed}`)
      if (condition === 'service_healthy')
        assert.ok(other.healthcheck?.test !== undefined, `${needed} has no health check`)
    }
    // Tapeline's containers have theirs from the Dockerfile.
    assert.ok(image === 'tapeline:local' || healthcheck?.test !== undefined, `${where} has no health check`)
    assert.equal(restart, name === 'kafka-init' ? 'no' : 'unless-stopped', where)
  })
})

test('a container is unhealthy when its process is unresponsive, not when an external system is down', async () => {
  const dockerfile = readFileSync(join(DOCKER, 'Dockerfile'), 'utf8')
  const [, byDefault = ''] = /^ENV HEALTH_URL=(\S+)$/m.exec(dockerfile) ?? []
  assert.equal(new URL(byDefault).pathname, '/livez')
  everyService(({ image, environment, depends_on }, name, where) => {
    if (image === 'tapeline:local' && name !== 'kafka-init')
      assert.equal(new URL(String(environment['HEALTH_URL'])).pathname, '/livez', where)
    // No service waits for "healthy" as if it meant "ready".
    for (const [needed, { condition }] of Object.entries(depends_on)) {
      const isOurs = FILES['with the cluster'].services[needed]?.image === 'tapeline:local'
      assert.ok(!isOurs || condition !== 'service_healthy', `${where} waits for ${needed}`)
    }
  })
  const server = await startHealthServer(
    { host: '127.0.0.1', port: 0, portSetting: 'CONSUMER_PORT' },
    {
      readiness: () => ({ ready: false, reason: 'Kafka is away' }),
      status: () => ({}),
      metrics: async () => '',
    },
  )
  try {
    const exitCode = (path: string) =>
      new Promise((resolve) => {
        const env = { ...process.env, HEALTH_URL: `${server.url}${path}` }
        execFile(process.execPath, [join(DOCKER, 'healthcheck.mjs')], { env }, (error) =>
          resolve(error === null ? 0 : error.code),
        )
      })
    assert.deepEqual([await exitCode('/livez'), await exitCode('/readyz')], [0, 1])
  } finally {
    await server.close()
  }
})

test('archive and observability are optional, and the core does not depend on it', () => {
  for (const { services } of Object.values(FILES)) {
    const asked = Object.keys(services).filter((name) => services[name]?.profiles.length !== 0)
    assert.deepEqual(asked.toSorted(), OPTIONAL)
    for (const [name, { depends_on }] of Object.entries(services)) {
      if (!OPTIONAL.includes(name))
        assert.ok(!Object.keys(depends_on).some((needed) => OPTIONAL.includes(needed)), name)
    }
  }
})

test('no database and no Grafana starts with a well-known password', () => {
  const { secrets } = FILES['docker-compose.yml']
  everyService((service, _, where) => {
    for (const [name, value] of Object.entries(service.environment)) {
      if (name === 'DATABASE_URL' && value === NO_DATABASE) continue
      if (/PASSWORD|SECRET|TOKEN|DATABASE_URL/.test(name)) {
        assert.match(name, /_FILE$/, where)
        const [, file = ''] = /^\/run\/secrets\/(\w+)$/.exec(String(value)) ?? []
        assert.ok(service.secrets.includes(file) && file in secrets, `${where}: ${name}`)
      }
      assert.doesNotMatch(String(value), /:\/\/[^/]*:[^/]*@/, `${where}: ${name}`)
    }
  })
})

test('the password script creates new passwords, keeps existing ones, and lets no other user in', () => {
  const folder = mkdtempSync(join(tmpdir(), 'secrets-'))
  const run = (into: string) => execFileSync('sh', [join(DOCKER, 'make-env.sh'), into], { encoding: 'utf8' })
  const read = (into: string) =>
    Object.fromEntries(readdirSync(into).map((name) => [name, readFileSync(join(into, name), 'utf8')]))
  try {
    const [first, second] = [join(folder, 'first'), join(folder, 'second')]
    assert.equal(run(first), '', 'it prints nothing')
    const drawn = read(first)
    const wanted = Object.values(FILES['docker-compose.yml'].secrets).map(({ file }) =>
      file.replace('./secrets/', ''),
    )
    assert.deepEqual(Object.keys(drawn).toSorted(), wanted.toSorted())
    assert.match(drawn['postgres_password'] ?? '', /^[A-Za-z0-9]{32}$/)
    assert.match(drawn['grafana_password'] ?? '', /^[A-Za-z0-9]{32}$/)
    const url = drawn['database_url'] ?? ''
    assert.equal(new URL(url).password, drawn['postgres_password'])
    loadSettings({ DATABASE_URL: url }, { cwd: folder })
    assert.equal(statSync(first).mode & 0o777, 0o700)
    for (const name of wanted) assert.equal(statSync(join(first, name)).mode & 0o777, 0o444, name)

    run(first)
    assert.deepEqual(read(first), drawn, 'a second run keeps them')
    rmSync(join(first, 'postgres_password'))
    run(first)
    assert.equal(new URL(read(first)['database_url'] ?? '').password, read(first)['postgres_password'])
    run(second)
    const others = read(second)
    for (const name of wanted) assert.notEqual(others[name], drawn[name], name)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
  const ignored = readFileSync(join(DOCKER, '../.gitignore'), 'utf8')
  assert.match(ignored, /^docker\/secrets\/$/m)
})

test('telemetry and update checks are off everywhere', () => {
  const { services } = FILES['docker-compose.yml']
  assert.deepEqual(services['timescaledb']?.command?.slice(1), ['-c', 'timescaledb.telemetry_level=off'])
  assert.equal(services['kafka-ui']?.environment['GITHUB_RELEASE_INFO_ENABLED'], 'false')
  const grafana = services['grafana']?.environment ?? {}
  for (const name of ['REPORTING_ENABLED', 'CHECK_FOR_UPDATES', 'CHECK_FOR_PLUGIN_UPDATES'])
    assert.equal(grafana[`GF_ANALYTICS_${name}`], 'false', name)
  assert.equal(grafana['GF_PLUGINS_PREINSTALL_DISABLED'], 'true')
  assert.equal(grafana['GF_NEWS_NEWS_FEED_ENABLED'], 'false')
})

test('every mounted file exists, and every volume is declared', () => {
  everyService(({ volumes }, _, where) => {
    for (const volume of volumes) {
      const [source = ''] = volume.split(':')
      if (source.startsWith('.')) assert.ok(existsSync(join(DOCKER, source)), `${where}: ${source}`)
      else assert.ok(source in FILES['with the cluster'].volumes, `${where}: ${source}`)
    }
  })
})

test('every setting given to a service exists and is valid', () => {
  // Variables of the image, of the dashboard's command, and of the process.
  const others = ['HEALTH_URL', 'INGEST_URLS', 'CONSUMER_URLS', 'HTTPS_PROXY', 'HTTP_PROXY', 'NO_PROXY']
  everyService(({ environment, image }, _, where) => {
    if (image !== 'tapeline:local') return
    const names = Object.keys(environment).map((name) => name.replace(/_FILE$/, ''))
    const unknown = names.filter((name) => !(name in DEFINITIONS || others.includes(name)))
    assert.deepEqual(unknown, [], where)
    given(environment)
  })
})

test('each service gets every setting that it reads, except TLS and SASL, which this broker does not use', () => {
  const configs: Readonly<Record<string, (settings: Settings) => unknown>> = {
    ingest: ingestionConfig,
    consume: consumerConfig,
    dashboard: dashboardConfig,
  }
  everyService(({ command, environment }, _, where) => {
    const config = configs[String(command?.[0])]
    if (config === undefined) return
    const names = new Set(['LOG_LEVEL'])
    const get = (settings: Settings, name: keyof Settings) => {
      names.add(name)
      return settings[name]
    }
    config(new Proxy(given(environment), { get }))
    assert.ok(names.size > 5, where)
    const wanted = [...names].filter((name) => !/^KAFKA_(TLS|SASL)/.test(name))
    const missing = wanted.filter((name) => !(name in environment || `${name}_FILE` in environment))
    assert.deepEqual(missing, [], where)
  })
})

test('Prometheus lists every ingestion and consumer by name, so that a stopped one is down rather than forgotten', () => {
  for (const [file, { services }] of Object.entries(FILES)) {
    const mounts = mountsByTarget(services['prometheus']?.volumes ?? [])
    const mounted = (name: string): unknown => {
      const [source] = (mounts.get(`/etc/prometheus/${name}`) ?? assert.fail(`${file}: ${name}`)).split(':')
      return parse(readFileSync(join(DOCKER, source ?? ''), 'utf8'))
    }
    const targets = PROMETHEUS.parse(mounted('prometheus.yml')).scrape_configs.flatMap((job) => {
      const named = job.file_sd_configs
        .flatMap(({ files }) => files)
        .map((name) => GROUPS.parse(mounted(name)))
      return [...job.static_configs, ...named.flat()]
        .flatMap((group) => group.targets)
        .map((target) => `${job.job_name} ${target}`)
    })
    const expected = Object.entries(services).flatMap(([name, { command, environment }]) => {
      if (command?.[0] === 'ingest') return [`tapeline-ingestion ${name}:${environment['INGEST_PORT']}`]
      if (command?.[0] === 'consume') return [`tapeline-consumer ${name}:${environment['CONSUMER_PORT']}`]
      return []
    })
    assert.deepEqual(
      targets.filter((target) => target.startsWith('tapeline-')).toSorted(),
      expected.toSorted(),
      file,
    )
  }
})

test('Prometheus finds the disks, and Grafana finds Prometheus and the dashboard', () => {
  const { services } = FILES['docker-compose.yml']
  const read = (path: string): unknown => parse(readFileSync(join(DOCKER, '..', path), 'utf8'))
  assert.match(JSON.stringify(read('ops/prometheus/prometheus.yml')), /node-exporter:9100/)
  const watched = services['node-exporter']?.volumes ?? []
  for (const volume of ['timescaledb-data', 'kafka-data'])
    assert.ok(
      watched.some((one) => new RegExp(`^${volume}:/watched/\\w+:ro$`).test(one)),
      volume,
    )

  const mounts = new Map(
    (services['grafana']?.volumes ?? []).map((one) => [one.split(':')[0], one.split(':')[1]]),
  )
  const provider = JSON.stringify(read('ops/grafana/provisioning/dashboards/tapeline.yml'))
  assert.ok(provider.includes(`"path":"${mounts.get('../ops/grafana/dashboards')}"`))
  assert.equal(mounts.get('../ops/grafana/provisioning'), '/etc/grafana/provisioning')
  assert.match(
    JSON.stringify(read('ops/grafana/provisioning/datasources/prometheus.yml')),
    /"url":"http:\/\/prometheus:9090"/,
  )
})

test('in the cluster one broker may die: every topic has three replicas, of which two must have a message', () => {
  const { services } = FILES['with the cluster']
  const brokers = ['kafka', 'kafka-2', 'kafka-3'].map((name) => services[name]?.environment ?? {})
  const differing = ['KAFKA_NODE_ID', 'KAFKA_LISTENERS', 'KAFKA_ADVERTISED_LISTENERS']
  const shared = brokers.map((environment) =>
    Object.fromEntries(Object.entries(environment).filter(([name]) => !differing.includes(name))),
  )
  assert.deepEqual(shared[1], shared[0])
  assert.deepEqual(shared[2], shared[0])
  for (const name of differing)
    assert.equal(new Set(brokers.map((environment) => environment[name])).size, 3, name)
  const replicas = Object.entries(shared[0] ?? {}).filter(([name]) => name.endsWith('REPLICATION_FACTOR'))
  assert.equal(replicas.length, 4)
  for (const [name, value] of replicas) assert.equal(value, 3, name)
  assert.equal(shared[0]?.['KAFKA_MIN_INSYNC_REPLICAS'], 2)
  const init = services['kafka-init']?.environment ?? {}
  assert.deepEqual([init['KAFKA_REPLICATION_FACTOR'], init['KAFKA_MIN_INSYNC_REPLICAS']], [3, 2])
  const all = 'kafka:29092,kafka-2:29092,kafka-3:29092'
  for (const name of ['kafka-init', 'ingestion', 'consumer', 'consumer-2', 'consumer-3'])
    assert.equal(services[name]?.environment['KAFKA_BROKERS'], all, name)
  const urls = String(services['dashboard']?.environment['CONSUMER_URLS'])
  const expected = ['consumer', 'consumer-2', 'consumer-3'].map((name) => `http://${name}:8081`)
  assert.deepEqual(urls.split(','), expected)
})
