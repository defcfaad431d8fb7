import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { stripVTControlCharacters } from 'node:util'
import { TapelineError } from '../../foundation/runtime/errors.ts'
import { makeFolder } from '../../foundation/runtime/folders.ts'
import { javaVersion, mavenVersion } from './java.ts'

export const KAFKA_VERSION = '4.4.0'
const SCALA_VERSION = '2.13'
/** That of this Kafka's log4j-core; Kafka logs nothing without the binding, which is no dependency. */
const LOG4J_VERSION = '2.25.5'
/** Age at which a partial download counts as interrupted. */
const ABANDONED_MS = 3_600_000

const POM = `<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>tapeline</groupId>
  <artifactId>kafka-distribution</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_${SCALA_VERSION}</artifactId>
      <version>${KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>${LOG4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
`

export interface DistributionOptions {
  readonly cacheDir: string
  /** Called with a short description of the progress, at most some ten times a second. */
  readonly onProgress?: (text: string) => void
  readonly signal?: AbortSignal
}

/**
 * Returns the directory of the Kafka distribution, with its jars in `libs`. Downloads it through
 * Maven on first use (43 MB); it appears only when it is complete.
 * @throws TapelineError `ENVIRONMENT` when Java or Maven is missing, or Maven cannot download it
 */
export async function ensureKafkaDistribution(options: DistributionOptions): Promise<string> {
  const directory = join(options.cacheDir, `kafka-${KAFKA_VERSION}`)
  if (existsSync(directory)) return directory
  await javaVersion()
  await mavenVersion()
  makeFolder(options.cacheDir)
  await removeAbandoned(options.cacheDir)
  const partial = await mkdtemp(`${directory}.partial-`)
  try {
    await writeFile(join(partial, 'pom.xml'), POM)
    await copyDependencies(partial, options)
    await rename(partial, directory).catch((error: unknown) => {
      // Another process may have been faster; its directory is complete.
      if (!existsSync(join(directory, 'libs'))) throw error
    })
  } finally {
    await rm(partial, { recursive: true, force: true })
  }
  return directory
}

async function copyDependencies(
  directory: string,
  { onProgress, signal }: DistributionOptions,
): Promise<void> {
  const libs = join(directory, 'libs')
  const goal = ['dependency:copy-dependencies', '-DincludeScope=runtime', `-DoutputDirectory=${libs}`]
  const maven = spawn('mvn', ['-B', '-f', join(directory, 'pom.xml'), ...goal], {
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(signal === undefined ? {} : { signal }),
  })
  const lines: string[] = []
  let files = 0
  const exit = new Promise<number | null>((resolve, reject) => {
    maven.once('error', reject)
    maven.once('close', resolve)
  })
  const listen = (line: string) => {
    lines.push(line)
    const downloaded = /Downloaded from .*\/([^/ ]+\.jar) /.exec(line)
    if (downloaded === null) return
    files += 1
    onProgress?.(`downloading Kafka ${KAFKA_VERSION}: ${files} files, ${downloaded[1]}`)
  }
  createInterface({ input: maven.stdout }).on('line', listen)
  createInterface({ input: maven.stderr }).on('line', listen)
  onProgress?.(`downloading Kafka ${KAFKA_VERSION}`)
  if ((await exit) === 0 && (await hasJars(libs))) return
  throw new TapelineError(
    'ENVIRONMENT',
    `Maven could not download Kafka ${KAFKA_VERSION}: ${mavenFailure(lines)}`,
    { fix: "Check the network and Maven's settings, then retry, or set KAFKA_BROKERS to a running broker." },
  )
}

/** The reason in Maven's output: its first error, without the advice that follows. */
export function mavenFailure(lines: readonly string[]): string {
  const plain = lines.map((line) => stripVTControlCharacters(line).trim()).filter((line) => line !== '')
  const error = plain.find((line) => /^\[(ERROR|FATAL)\] ./.test(line)) ?? plain.at(-1) ?? 'no output'
  return error
    .replace(/^\[\w+\] /, '')
    .replace(/ -> \[Help \d+\]$/, '')
    .slice(0, 400)
}

async function hasJars(directory: string): Promise<boolean> {
  const names = existsSync(directory) ? await readdir(directory) : []
  return names.some((name) => name.startsWith(`kafka_${SCALA_VERSION}-`))
}

async function removeAbandoned(cacheDir: string): Promise<void> {
  for (const name of await readdir(cacheDir)) {
    if (!name.includes('.partial-')) continue
    const path = join(cacheDir, name)
    const { mtimeMs } = await stat(path)
    if (Date.now() - mtimeMs > ABANDONED_MS) await rm(path, { recursive: true, force: true })
  }
}
