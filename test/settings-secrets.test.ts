import assert from 'node:assert/strict'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { inspect } from 'node:util'
import { isTapelineError } from '../src/foundation/runtime/errors.ts'
import { loadSettings } from '../src/foundation/settings/load.ts'
import type { Exchange } from '../src/sandbox/simulator/exchange-server.ts'
import { startSimulatedExchange } from '../src/sandbox/simulator/simulated-exchange.ts'
import { createTestDatabase, type TestDatabase } from './support/database.ts'
import { brokers } from './support/kafka.ts'
import { type RunningCommand, startTapeline } from './support/processes.ts'
import { startConsumerProcess, startIngestionProcess } from './support/services.ts'
import { until } from './support/wait-for.ts'

/** Part of every secret in these tests, and of nothing else. */
const NEEDLE = 'Zq7needle'
const KAFKA_SECRET = `${NEEDLE}-kafka`
const API_KEY = `${NEEDLE}-key`
const DATABASE_SECRET = `${NEEDLE}-database`
/** A port on which nothing listens. */
const NOWHERE = '127.0.0.1:1'

let folder: string
let exchange: Exchange
let database: TestDatabase

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'settings-secrets-'))
  exchange = await startSimulatedExchange({ messagesPerSecond: 10 })
  database = await createTestDatabase()
})

after(async () => {
  await database.drop()
  await exchange.close()
})

type Environment = Readonly<Record<string, string>>

const shared = (): Environment => ({
  BINANCE_WS_URL: exchange.wsUrl,
  BINANCE_REST_URL: exchange.restUrl,
  KAFKA_SASL_MECHANISM: 'SCRAM-SHA-512',
  KAFKA_SASL_USERNAME: 'tapeline',
  KAFKA_SASL_PASSWORD: KAFKA_SECRET,
  BINANCE_API_KEY: API_KEY,
  LOG_LEVEL: 'debug',
  BACKOFF_INITIAL_MS: '100',
  BACKOFF_MAX_MS: '200',
})

function databaseUrl(host?: string): string {
  const url = new URL(database.url)
  url.password = DATABASE_SECRET
  if (host !== undefined) url.host = host
  return url.href
}

/** Checks that no encoding of a secret appears. */
function assertSilent(text: string, what: string): void {
  const forms = [KAFKA_SECRET, DATABASE_SECRET, API_KEY].flatMap((secret) => [
    NEEDLE,
    Buffer.from(secret).toString('base64').slice(0, 12),
    Buffer.from(secret).toString('hex').slice(0, 16),
  ])
  for (const form of forms) assert.ok(!text.includes(form), `${what} shows a secret:\n${text}`)
}

const COMMANDS = [['topics', 'init'], ['migrate'], ['verify'], ['ingest'], ['consume']]

/** Runs every command until it has exited or logged two retries, and checks all its output. */
async function runAll(environment: Environment, commands = COMMANDS): Promise<Record<string, string>> {
  const outputs = await Promise.all(
    commands.map(async (args) => {
      const name = args.join(' ')
      const service = name === 'ingest' || name === 'consume'
      const start = name === 'ingest' ? startIngestionProcess : startConsumerProcess
      if (!service) {
        await using command = startTapeline(args, { env: environment })
        await command.exit()
        return [name, command.output()] as const
      }
      await using running = await start(environment)
      const { command, url } = running
      const pages = await settled(command, url)
      return [name, command.output() + pages] as const
    }),
  )
  for (const [name, text] of outputs) assertSilent(text, `tapeline ${name}`)
  return Object.fromEntries(outputs)
}

/** The error as shown with LOG_LEVEL=debug, including the stack. */
function refusalOf(environment: Environment): string {
  try {
    loadSettings(environment, { cwd: folder })
  } catch (error) {
    assert.ok(isTapelineError(error, 'SETTINGS'))
    return `${inspect(error)} ${error.fix}`
  }
  throw new Error('The settings were accepted')
}

/** A service's HTTP answers while it retries; empty if it has exited. */
async function settled(command: RunningCommand, url: string): Promise<string> {
  const retries = () =>
    command.output().match(/trying again|retrying|Cannot join|"level":50|tapeline:/g)?.length ?? 0
  await until(
    `a service to have failed; it said ${command.output()}`,
    () => retries() >= 2 || (retries() >= 1 && /"level":50|tapeline:/.test(command.output())),
  )
  const pages = ['/', '/livez', '/readyz', '/status', '/metrics'].map(async (path) => {
    try {
      return await (await fetch(`${url}${path}`, { signal: AbortSignal.timeout(2000) })).text()
    } catch {
      // It has exited, as it should if waiting does not help.
      return ''
    }
  })
  return (await Promise.all(pages)).join('\n')
}

test('shows no secret while brokers and database are down', async () => {
  const down = { KAFKA_BROKERS: NOWHERE, DATABASE_URL: databaseUrl(NOWHERE) }
  const said = await runAll({ ...shared(), ...down })
  assert.match(said['ingest'] ?? '', /"service": "ingestion"/, '/status was checked')
  assert.match(said['consume'] ?? '', /tapeline_/, '/metrics was checked')
})

test('shows no secret when it is wrong or the broker has no login', async () => {
  const up = { KAFKA_BROKERS: brokers().join(), DATABASE_URL: databaseUrl() }
  const said = await runAll({ ...shared(), ...up })
  assert.match(said['ingest'] ?? '', /this listener of the broker has no SASL login/)
})

test('shows no secret when its URL is invalid, in whichever part the secret is', async () => {
  for (const url of [
    `postgres://tapeline:${DATABASE_SECRET}@localhost`,
    `mysql://tapeline:${DATABASE_SECRET}@localhost/tapeline`,
    `postgres://tapeline:1/${DATABASE_SECRET}@localhost/tapeline`,
    `postgres://tapeline:1?${DATABASE_SECRET}@localhost/tapeline`,
    `postgres://tapeline:1#${DATABASE_SECRET}@localhost/tapeline`,
    `postgres://localhost/tapeline?sslmode=prefer&password=${DATABASE_SECRET}`,
    `tapeline:${DATABASE_SECRET}`,
    DATABASE_SECRET,
  ]) {
    const wrong = { ...shared(), DATABASE_URL: url, BINANCE_WS_URL: `wss://u:${KAFKA_SECRET}@localhost` }
    const message = refusalOf(wrong)
    assert.match(message, /DATABASE_URL=.*: expected/)
    assert.match(message, /BINANCE_WS_URL=wss:\/\/u:\*\*\*@localhost\/?: expected/)
    assertSilent(message, url)
  }
})

test('shows no secret placed in another setting', () => {
  const wrong: Environment = {
    KAFKA_BROKERS: `SASL_SSL://u:${KAFKA_SECRET}@kafka:9092`,
    INGEST_URLS: `http://ingest-0:8080,http://admin:${KAFKA_SECRET}@ingest-1:8080`,
    CONSUMER_URLS: `http://consumer-0:8081?token=${KAFKA_SECRET}`,
    BINANCE_REST_URL: `https://api.example?auth=${KAFKA_SECRET}`,
    KAFKA_TLS_KEY: `-----BEGIN PRIVATE KEY-----\n${KAFKA_SECRET}`,
    KAFKA_GROUP_ID: `a b password=${KAFKA_SECRET}`,
    DATABASE_URL: `postgres://localhost/tapeline?sslmode=prefer&user=u&pwd=${DATABASE_SECRET}#${DATABASE_SECRET}`,
  }
  for (const [name, value] of Object.entries(wrong)) {
    const refusal = refusalOf({ ...shared(), [name]: value })
    assert.match(refusal, new RegExp(`${name}=.*\\*\\*\\*.*: expected`))
    assertSilent(refusal, name)
  }
  for (const url of [
    `postgres://u:${DATABASE_SECRET}@h:99999/db`,
    `host=h user=u password=${DATABASE_SECRET}`,
    `postgres://u:${DATABASE_SECRET}@h/db?sslmode=prefer`,
  ])
    assertSilent(refusalOf({ ...shared(), DATABASE_URL: url }), url)
  const { KAFKA_SASL_PASSWORD: _, ...others } = shared()
  for (const file of [KAFKA_SECRET, `postgres://u:${DATABASE_SECRET}@h/db`]) {
    const refusal = refusalOf({ ...others, KAFKA_SASL_PASSWORD_FILE: file })
    assert.match(refusal, /KAFKA_SASL_PASSWORD_FILE=\*\*\*: expected a readable file \(ENOENT\)/)
    assertSilent(refusal, 'a secret in place of its file')
  }
})

test('reads each secret from a file, and names a missing, empty or duplicate file', async () => {
  const file = (name: string, text: string) => {
    writeFileSync(join(folder, name), `${text}\n`)
    return join(folder, name)
  }
  const kafka = file('kafka-password', KAFKA_SECRET)
  const url = file('database-url', databaseUrl(NOWHERE))
  const empty = file('empty', '')
  const { KAFKA_SASL_PASSWORD: _, ...others } = shared()
  const files = { KAFKA_SASL_PASSWORD_FILE: kafka, DATABASE_URL_FILE: url }
  const said = await runAll({ ...others, ...files, KAFKA_BROKERS: NOWHERE }, [['migrate'], ['ingest']])
  assert.match(said['migrate'] ?? '', /127\.0\.0\.1:1.*cannot be migrated/, 'the URL came from the file')

  const wrong: Array<[Environment, RegExp]> = [
    [{ KAFKA_SASL_PASSWORD_FILE: '/nowhere/x' }, /PASSWORD_FILE=\/nowhere\/x: expected a readable file/],
    [{ DATABASE_URL_FILE: '/nowhere/x' }, /DATABASE_URL_FILE=\/nowhere\/x: expected a readable file/],
    [{ KAFKA_SASL_PASSWORD_FILE: empty }, /KAFKA_SASL_PASSWORD.*expected/],
    [{ DATABASE_URL_FILE: kafka }, /DATABASE_URL=\*\*\*: expected a URL/],
    [{ KAFKA_SASL_PASSWORD: KAFKA_SECRET }, /_PASSWORD and KAFKA_SASL_PASSWORD_FILE are both set/],
  ]
  for (const [environment, message] of wrong) {
    const refusal = refusalOf({ ...others, ...files, ...environment })
    assert.match(refusal, message)
    assertSilent(refusal, 'an error about a file')
  }
})
