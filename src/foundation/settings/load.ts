import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseEnv } from 'node:util'
import { describeError, TapelineError } from '../runtime/errors.ts'
import { withoutPassword } from '../runtime/without-password.ts'
import { contradictions } from './contradictions.ts'
import {
  DEFINITIONS,
  SECRET_NAMES,
  SETTING_NAMES,
  type SettingName,
  type SettingValues,
} from './definitions.ts'
import { nearMisses } from './near-miss.ts'

/** All settings, checked and frozen, and whether each was set or fell back to its default. */
export type Settings = SettingValues & { isSet(name: SettingName): boolean }

type Environment = Readonly<Record<string, string | undefined>>

/**
 * Reads the environment, and beneath it the file `.env` of `cwd` where there is one. An empty text counts as
 * not set. All that is wrong is reported in one error.
 *
 * @throws TapelineError `SETTINGS` naming each wrong setting, its value (secrets as `***`) and what is expected
 */
export function loadSettings(environment: Environment, options: { cwd: string }): Settings {
  const problems: string[] = []
  const fromFile = readDotEnv(options.cwd, problems)
  const texts: Environment = { ...fromFile, ...definedOnly(environment) }
  for (const miss of nearMisses(Object.keys(fromFile)))
    problems.push(`${miss.name} in .env: no such setting; did you mean ${miss.meant}?`)

  const values: Record<string, unknown> = {}
  const set = new Set<SettingName>()
  for (const name of SETTING_NAMES) {
    const text = textOf(name, texts, problems)
    if (text !== undefined) set.add(name)
    const { schema, fallback } = DEFINITIONS[name]
    const parsed = schema.safeParse(text ?? fallback)
    if (parsed.success) values[name] = parsed.data
    else
      problems.push(
        `${name}=${shown(name, text ?? '')}: expected ${parsed.error.issues[0]?.message ?? 'another value'}`,
      )
  }
  if (problems.length === 0) problems.push(...contradictions(values as SettingValues))
  if (problems.length > 0) {
    throw new TapelineError(
      'SETTINGS',
      ['Settings are wrong:', ...problems.map((line) => `  ${line}`)].join('\n'),
      {
        fix: 'Correct them in the environment or in .env; .env.example explains each.',
      },
    )
  }
  return Object.freeze({ ...(values as SettingValues), isSet: (name: SettingName) => set.has(name) })
}

/** A user with a password, a parameter with one, or a private key: where it does not belong, it does not parse either. */
const MAY_HOLD_A_SECRET = /:.*@|(pass|pwd|secret|token|key)\w*\s*=|-----BEGIN/is

/** Looks at the text alone, since a value that is wrong has no parts yet. */
function shown(name: SettingName, text: string): string {
  if (text === '') return ''
  if (name.endsWith('_URL')) return withoutPassword(text)
  const isAddress = name === 'KAFKA_BROKERS' || name.endsWith('_URLS')
  if (isAddress && /[@?#=]/.test(text)) return '***'
  return SECRET_NAMES.has(name) || MAY_HOLD_A_SECRET.test(text) ? '***' : text
}

function readDotEnv(cwd: string, problems: string[]): Record<string, string> {
  try {
    return definedOnly(parseEnv(readFileSync(join(cwd, '.env'), 'utf8')))
  } catch (error) {
    if (error instanceof Error && Reflect.get(error, 'code') === 'ENOENT') return {}
    problems.push(`.env cannot be read: ${describeError(error)}`)
    return {}
  }
}

function definedOnly(environment: Environment): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment).flatMap(([name, text]) =>
      text === undefined || text.trim() === '' ? [] : [[name, text.trim()]],
    ),
  )
}

/** The text of a setting; that of a secret may come from the file that `NAME_FILE` names. */
function textOf(name: SettingName, texts: Environment, problems: string[]): string | undefined {
  const file = SECRET_NAMES.has(name) ? texts[`${name}_FILE`] : undefined
  if (file === undefined) return texts[name]
  if (texts[name] !== undefined) problems.push(`${name} and ${name}_FILE are both set: expected one of them`)
  try {
    return readFileSync(file, 'utf8').trim()
  } catch (error) {
    // What has no slash may be the secret itself, and the error repeats it.
    const isPath = file.includes('/') && !MAY_HOLD_A_SECRET.test(file)
    const why = isPath ? describeError(error) : Reflect.get(Object(error), 'code')
    problems.push(`${name}_FILE=${isPath ? file : '***'}: expected a file that can be read (${why})`)
    return undefined
  }
}
