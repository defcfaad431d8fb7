import assert from 'node:assert/strict'
import { globSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { test } from 'node:test'
import { parseEnv } from 'node:util'
import { findingsIn } from '../scripts/tracked-files.ts'
import { DEFINITIONS, SETTING_NAMES } from '../src/foundation/settings/definitions.ts'
import { loadSettings } from '../src/foundation/settings/load.ts'
import { importsOf } from './support/test-files.ts'

const ROOT = resolve(import.meta.dirname, '..')
const SOURCES = globSync('src/**/*.ts', { cwd: ROOT }).sort()
const LONGEST_FILE = 350

const read = (file: string) => readFileSync(join(ROOT, file), 'utf8')
const manifest: unknown = JSON.parse(read('package.json'))

/** `src/<room>/…` → room; '' for a file of src itself. */
function roomOf(file: string): string {
  const [, room = ''] = dirname(file).split(sep)
  return room
}

/** Imports as `from → to` that `forbidden` names, by room. */
function importsBetween(forbidden: (from: string, to: string) => boolean): string[] {
  return SOURCES.flatMap((file) =>
    importsOf(join(ROOT, file))
      .map((target) => relative(ROOT, target))
      .filter((target) => forbidden(roomOf(file), target.startsWith('src') ? roomOf(target) : 'outside'))
      .map((target) => `${file} → ${target}`),
  )
}

test('2.1 no room has a name that says nothing of what it holds', () => {
  const rooms = readdirSync(join(ROOT, 'src'))
  assert.deepEqual(
    rooms.filter((room) => /^(utils?|helpers?|common|lib|misc|shared)$/.test(room)),
    [],
  )
})

test('2.2 neither service can be broken by a change of the other', () => {
  const apart: Record<string, string[]> = {
    ingestion: ['consumer', 'store'],
    consumer: ['ingestion', 'exchange'],
  }
  assert.deepEqual(
    importsBetween((from, to) => apart[from]?.includes(to) === true),
    [],
  )
})

test('2.3 what both services stand on knows neither of them, nor the command line', () => {
  const shared = ['', 'market', 'timing', 'telemetry', 'settings', 'kafka', 'store', 'binance']
  const above = ['ingestion', 'consumer', 'cli', 'local', 'dashboard', 'audit']
  assert.deepEqual(
    importsBetween((from, to) => (shared.includes(from) && above.includes(to)) || to === 'outside'),
    [],
  )
})

test(`2.4 no source file is longer than ${LONGEST_FILE} lines`, () => {
  assert.deepEqual(
    SOURCES.filter((file) => read(file).split('\n').length > LONGEST_FILE),
    [],
  )
})

test('2.5 a thing has one name everywhere: nothing is exported as default', () => {
  const files = [...SOURCES, ...globSync('{test,scripts,chaos,bench}/**/*.ts', { cwd: ROOT })]
  assert.deepEqual(
    files.filter((file) => /^export default\b/m.test(read(file))),
    [],
  )
})

test('3.5 settings cannot be read behind the back of the one place that checks them', () => {
  const handedOn = /process\.env(?!\['PATH'\])/
  const readers = SOURCES.filter((file) => !['settings', 'cli'].includes(roomOf(file)))
  assert.deepEqual(
    readers.filter((file) => handedOn.test(read(file).replaceAll('...process.env', ''))),
    [],
  )
})

test('3.5 .env.example shows every setting with the default that holds, and sets none', () => {
  const example = read('.env.example')
  assert.deepEqual(parseEnv(example), {})
  const shown = new Map(Object.entries(parseEnv(example.replaceAll(/^#(?=[A-Z_]+=)/gm, ''))))
  const composeAlone = ['KAFKA_UI_PORT', 'PROMETHEUS_PORT', 'GRAFANA_PORT']
  assert.deepEqual([...shown.keys()].sort(), [...SETTING_NAMES, ...composeAlone].sort())
  for (const name of SETTING_NAMES) assert.equal(shown.get(name), DEFINITIONS[name].fallback ?? '', name)
  loadSettings(Object.fromEntries(shown), { cwd: import.meta.dirname })
})

test('5.2 a test file is found by the name of the room that it guards', () => {
  const rooms = [
    ...readdirSync(join(ROOT, 'src')).map((name) => name.replace('.ts', '')),
    'pipeline',
    'repository',
  ]
  const files = globSync('test/**/*.test.ts', { cwd: ROOT }).map((file) => relative('test', file))
  assert.deepEqual(
    files.filter((file) => !rooms.some((room) => file.startsWith(`${room}-`))),
    [],
  )
})

test('6.1 an install of today and one of next year bring the same versions', () => {
  for (const [name, version] of dependencies()) assert.match(version, /^\d+\.\d+\.\d+(-[\w.]+)?$/, name)
})

test('6.2 the lock file sends nobody to a host of its own choice', () => {
  assert.match(read('.npmrc'), /^omit-lockfile-registry-resolved=true$/m)
  assert.doesNotMatch(read('package-lock.json'), /"resolved"/)
})

test('6.2 npm ci accepts the lock file: it holds the optional packages of every platform, not of one machine', () => {
  const { packages }: { packages: Record<string, { optionalDependencies?: Record<string, string> }> } =
    JSON.parse(read('package-lock.json'))
  const missing = Object.entries(packages).flatMap(([parent, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies).filter(
      (name) => !(`node_modules/${name}` in packages || `${parent}/node_modules/${name}` in packages),
    ),
  )
  assert.deepEqual(missing, [])
})

test('6.3 the notice names every dependency', () => {
  const notice = read('NOTICE')
  const named = (name: string) =>
    notice.includes(name) || (name.startsWith('@types/') && notice.includes('@types/*'))
  assert.deepEqual(
    dependencies()
      .map(([name]) => name)
      .filter((name) => !named(name)),
    [],
  )
})

test('6.4 the check of tracked files finds a planted host, folder and note, and nothing in plain text', () => {
  const host = ['https://registry', 'example', 'org/left-pad'].join('.')
  const folder = ['', 'home', 'somebody', 'tapeline'].join('/')
  const note = ['// TO', 'DO: later'].join('')
  for (const planted of [host, folder, note]) {
    assert.deepEqual(
      findingsIn('src/a.ts', `fine\n${planted}`).map(({ line }) => line),
      [2],
      planted,
    )
  }
  assert.deepEqual(
    findingsIn('docs/a.md', 'see https://example.org/home and ~/.cache/tapeline or ./root/x'),
    [],
  )
})

function dependencies(): Array<[name: string, version: string]> {
  return ['dependencies', 'devDependencies'].flatMap((kind) =>
    Object.entries(Reflect.get(Object(manifest), kind) ?? {}).map(([name, version]): [string, string] => [
      name,
      String(version),
    ]),
  )
}
