import { execFile } from 'node:child_process'
import { promisify, stripVTControlCharacters } from 'node:util'
import { describeError, TapelineError } from '../../foundation/runtime/errors.ts'

export const MINIMUM_JAVA = 17
const FIX =
  'Install it (Debian, Ubuntu: apt-get install -y openjdk-17-jre-headless maven; macOS: brew install openjdk maven), ' +
  'or set KAFKA_BROKERS to a broker that is already running.'

/** @returns Java's version text @throws TapelineError `ENVIRONMENT` without Java of at least version 17 */
export async function javaVersion(): Promise<string> {
  const text = await versionText('java', '-version')
  const version = parseJavaVersion(text)
  // Options in the environment are printed before it.
  if (version >= MINIMUM_JAVA) return firstLine(text.replace(/^NOTE: .*\n|^Picked up .*\n/gm, ''))
  const old = `Kafka needs Java ${MINIMUM_JAVA} or later; this machine has Java ${version}`
  throw new TapelineError('ENVIRONMENT', old, { fix: FIX })
}

/** @throws TapelineError `ENVIRONMENT` when there is no Maven in PATH */
export async function mavenVersion(): Promise<string> {
  return firstLine(await versionText('mvn', '--version'))
}

function firstLine(text: string): string {
  // Maven prints in bold even if its output is not a terminal.
  return stripVTControlCharacters(text).trim().split('\n', 1).join()
}

/** The major version in the output of `java -version`: 17 of `17.0.15`, 8 of `1.8.0`; 0 if none. */
export function parseJavaVersion(text: string): number {
  const match = /version "(?:1\.)?(\d+)/.exec(text)
  return match === null ? 0 : Number(match[1])
}

async function versionText(command: string, argument: string): Promise<string> {
  try {
    const { stdout, stderr } = await promisify(execFile)(command, [argument])
    return stderr + stdout
  } catch (error) {
    const missing = Reflect.get(Object(error), 'code') === 'ENOENT'
    const problem = missing
      ? `${command} is missing`
      : `${command} ${argument} failed: ${describeError(error)}`
    throw new TapelineError('ENVIRONMENT', `${problem}; it is needed to run Kafka on this machine`, {
      fix: FIX,
      cause: error,
    })
  }
}
