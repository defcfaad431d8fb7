import { pbkdf2Sync, randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Admin, alterUserScramCredentialsV0, ScramMechanisms } from '@platformatic/kafka'
import { startKafkaBroker } from '../../src/sandbox/kafka-broker/kafka-broker.ts'
import { ensureKafkaDistribution } from '../../src/sandbox/kafka-broker/kafka-distribution.ts'
import { freePort } from '../../src/sandbox/processes/free-ports.ts'
import { CACHE_DIRECTORY } from './bounded-run.ts'
import { createAuthority, type KeyPair } from './certificates.ts'
import { withAdmin } from './kafka-clients.ts'

/** `ELSEWHERE` presents a certificate signed by the authority for another host. */
const LISTENERS = {
  PLAINTEXT: 'PLAINTEXT',
  TLS: 'SSL',
  MUTUAL: 'SSL',
  SASL: 'SASL_SSL',
  ELSEWHERE: 'SSL',
} as const

export type Listener = keyof typeof LISTENERS

export type SecuredKafka = Awaited<ReturnType<typeof startSecuredKafka>>

/** Clients of the insecure listener, anonymous to the broker, are its administrators. */
const ACLS = {
  'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
  'super.users': 'User:ANONYMOUS',
  'allow.everyone.if.no.acl.found': 'false',
}

/**
 * A broker with separate listeners for TLS, client certificates and passwords.
 *
 * @param users names and passwords, for PLAIN and for both kinds of SCRAM
 * @param acls denies everything to everyone but the admin, until rights are granted
 */
export async function startSecuredKafka(users: Readonly<Record<string, string>>, acls = false) {
  const folder = await mkdtemp(join(tmpdir(), 'secured-kafka-'))
  const [authority, other] = [await createAuthority(folder, 'ca'), await createAuthority(folder, 'other')]
  const here = await keyStore(await authority.sign('broker', 'IP:127.0.0.1,DNS:localhost'))
  const elsewhere = await keyStore(await authority.sign('elsewhere', 'DNS:kafka.example'))
  const client = await authority.sign('client', 'DNS:client.example')
  const ports = { CONTROLLER: await freePort() }
  const names = Object.keys(LISTENERS) as Listener[]
  const addresses = await Promise.all(
    names.map(async (name) => [name, `127.0.0.1:${await freePort()}`] as const),
  )
  const at = Object.fromEntries(addresses) as Record<Listener, string>
  const advertised = names.map((name) => `${name}://${at[name]}`).join()
  const protocols = names.map((name) => `${name}:${LISTENERS[name]}`).join()
  const scram = 'org.apache.kafka.common.security.scram.ScramLoginModule required;'
  const plainUsers = Object.entries(users).map(([name, password]) => ` user_${name}="${password}"`)
  const broker = await startKafkaBroker({
    distributionDir: await ensureKafkaDistribution({ cacheDir: CACHE_DIRECTORY }),
    dataDir: join(folder, 'broker'),
    port: Number(at.PLAINTEXT.split(':')[1]),
    extraProperties: {
      'controller.quorum.voters': `1@127.0.0.1:${ports.CONTROLLER}`,
      listeners: `${advertised},CONTROLLER://127.0.0.1:${ports.CONTROLLER}`,
      'advertised.listeners': advertised,
      'listener.security.protocol.map': `${protocols},CONTROLLER:PLAINTEXT`,
      'ssl.keystore.type': 'PEM',
      'ssl.keystore.location': here,
      'ssl.truststore.type': 'PEM',
      'ssl.truststore.location': authority.cert,
      'listener.name.mutual.ssl.client.auth': 'required',
      'listener.name.elsewhere.ssl.keystore.type': 'PEM',
      'listener.name.elsewhere.ssl.keystore.location': elsewhere,
      'sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512',
      'listener.name.sasl.scram-sha-256.sasl.jaas.config': scram,
      'listener.name.sasl.scram-sha-512.sasl.jaas.config': scram,
      'listener.name.sasl.plain.sasl.jaas.config': `org.apache.kafka.common.security.plain.PlainLoginModule required${plainUsers.join('')};`,
      ...(acls ? ACLS : {}),
    },
  })
  /** Runs `work` with an admin who has all rights. */
  const asAdmin = <Result>(work: (admin: Admin) => Promise<Result>) => withAdmin([broker.brokers], work)
  try {
    await asAdmin((admin) => createScramUsers(admin, users))
  } catch (error) {
    broker.kill()
    throw error
  }
  return {
    /** For `KAFKA_BROKERS`. */
    at,
    /** Paths of PEM files: the broker's authority, another one, and a client's certificate and key. */
    files: { ca: authority.cert, otherCa: other.cert, client },
    asAdmin,
    async stop() {
      await broker.stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** Kafka takes key and certificate in one file. */
async function keyStore({ cert, key }: KeyPair): Promise<string> {
  const path = cert.replace('.pem', '-store.pem')
  await writeFile(path, (await readFile(key, 'utf8')) + (await readFile(cert, 'utf8')))
  return path
}

const SCRAM_ITERATIONS = 4096

async function createScramUsers(admin: Admin, users: Readonly<Record<string, string>>): Promise<void> {
  const credentials = Object.entries(users).flatMap(([name, password]) =>
    (['sha256', 'sha512'] as const).map((digest) => {
      const salt = randomBytes(16)
      const bytes = digest === 'sha256' ? 32 : 64
      const mechanism = digest === 'sha256' ? ScramMechanisms.SCRAM_SHA_256 : ScramMechanisms.SCRAM_SHA_512
      const saltedPassword = pbkdf2Sync(password, salt, SCRAM_ITERATIONS, bytes, digest)
      return { name, mechanism, iterations: SCRAM_ITERATIONS, salt, saltedPassword }
    }),
  )
  const brokers = await admin.connectToBrokers()
  const [connection] = brokers.values()
  if (connection === undefined) throw new Error('The broker returned no address')
  // Kafka accepts one credential of a user per request.
  for (const one of credentials) await alterUserScramCredentialsV0.api.async(connection, [], [one])
}
