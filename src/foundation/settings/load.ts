import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseEnv } from 'node:util'
import { codeOf, describeError, TapelineError } from '../runtime/errors.ts'
import { withoutPassword } from '../runtime/without-password.ts'
import { contradictions } from './contradictions.ts'
import {
  DEFINITIONS,
  SECRET_NAMES,
  SETTING_NAMES,
  type SettingName,
  type SettingValues,
} from './definitions.ts'

/** All settings, validated and frozen, with whether each was set or has its default. */
export type Settings = SettingValues & { isSet(name: SettingName): boolean }

type Environment = Readonly<Record<string, string | undefined>>

/**
 * Reads the environment, then the file `.env` of `cwd` if it exists. An empty text counts as unset.
 * @throws TapelineError `SETTINGS` naming every wrong setting, its value (secrets as `***`) and a right one
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
    const message = ['Settings are wrong:', ...problems.map((line) => `  ${line}`)].join('\n')
    const fix = 'Correct them in the environment or in .env; .env.example explains each.'
    throw new TapelineError('SETTINGS', message, { fix })
  }
  return Object.freeze({ ...(values as SettingValues), isSet: (name: SettingName) => set.has(name) })
}

/** Matches texts that may contain a secret: a user with a password, a parameter with one, a private key. */
const MAY_HOLD_A_SECRET = /:.*@|(pass|pwd|secret|token|key)\w*\s*=|-----BEGIN/is

/** Uses the text only, since a wrong value has no parsed parts. */
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
    if (codeOf(error) === 'ENOENT') return {}
    problems.push(`Reading .env failed: ${describeError(error)}`)
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

/** Returns the text of a setting; a secret may come from the file that `NAME_FILE` names. */
function textOf(name: SettingName, texts: Environment, problems: string[]): string | undefined {
  const file = SECRET_NAMES.has(name) ? texts[`${name}_FILE`] : undefined
  if (file === undefined) return texts[name]
  if (texts[name] !== undefined) problems.push(`${name} and ${name}_FILE are both set: expected one of them`)
  try {
    return readFileSync(file, 'utf8').trim()
  } catch (error) {
    // A value without a slash may be the secret itself, which the error would repeat.
    const isPath = file.includes('/') && !MAY_HOLD_A_SECRET.test(file)
    const why = isPath ? describeError(error) : Reflect.get(Object(error), 'code')
    problems.push(`${name}_FILE=${isPath ? file : '***'}: expected a readable file (${why})`)
    return undefined
  }
}

/** Returns a setting's value for display with its origin: nobody has to correct what was never set. */
export function withOrigin(settings: Pick<Settings, 'isSet'>, name: SettingName, shown: string): string {
  return `${shown} (${settings.isSet(name) ? name : `the default of ${name}`})`
}

/** Maximum edits between two names that count as a typing error. */
const MAX_EDITS = 2

/** Returns names that resemble a setting, which would be ignored silently. Other programs have others. */
function nearMisses(names: readonly string[]): Array<{ name: string; meant: string }> {
  const known = new Set<string>([...SETTING_NAMES, ...[...SECRET_NAMES].map((name) => `${name}_FILE`)])
  return names.flatMap((name) => {
    if (known.has(name)) return []
    const meant = [...known].find((candidate) => editDistance(normal(name), normal(candidate)) <= MAX_EDITS)
    return meant === undefined ? [] : [{ name, meant }]
  })
}

function normal(name: string): string {
  return name.toUpperCase().replaceAll('-', '_')
}

function editDistance(left: string, right: string): number {
  if (Math.abs(left.length - right.length) > MAX_EDITS) return MAX_EDITS + 1
  let row = Array.from({ length: right.length + 1 }, (_, index) => index)
  for (const [i, leftChar] of [...left].entries()) {
    const next = [i + 1]
    for (const [j, rightChar] of [...right].entries()) {
      next.push(
        Math.min((row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1, (row[j] ?? 0) + (leftChar === rightChar ? 0 : 1)),
      )
    }
    row = next
  }
  return row[right.length] ?? 0
}
