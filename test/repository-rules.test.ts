import assert from 'node:assert/strict'
import { globSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { test } from 'node:test'
import { parseEnv } from 'node:util'
import { staleFiles } from '../scripts/generate.ts'
import { examples } from '../scripts/settings-page.ts'
import { findingsIn } from '../scripts/tracked-files.ts'
import { DEFINITIONS, SETTING_NAMES } from '../src/foundation/settings/definitions.ts'
import { loadSettings } from '../src/foundation/settings/load.ts'
import { column } from './support/columns.ts'
import { importsOf } from './support/test-files.ts'

const ROOT = resolve(import.meta.dirname, '..')
const SOURCES = globSync('src/**/*.ts', { cwd: ROOT }).sort()
const LONGEST_FILE = 350
const SHORTEST_FILE = 30
/** More would be files that only pass something on. */
const MOST_SHORT_FILES = 20

const read = (file: string) => readFileSync(join(ROOT, file), 'utf8')
const manifest: unknown = JSON.parse(read('package.json'))

/** The lowest first. A file may import from its own folder and lower layers, not beside it. */
const LAYERS: ReadonlyArray<readonly string[]> = [
  ['foundation'],
  ['ingestion', 'consumer', 'archive', 'sandbox'],
  ['tools'],
  ['cli'],
]

/** Files below {@link SHORTEST_FILE} lines with one importer, and why they are separate. */
const SMALL_FILES: Readonly<Record<string, string>> = {
  'src/tools/client/index.ts': 'what the package exports',
  'src/sandbox/processes/stop-with-parent.ts': 'preloaded into each Node child',
}

/** `src/<folder>/…` → folder. */
function roomOf(file: string): string {
  return file.split(sep)[1] ?? ''
}

function layerOf(file: string): number {
  return LAYERS.findIndex((rooms) => rooms.includes(roomOf(file)))
}

interface Import {
  readonly from: string
  readonly to: string
}

/** Relative imports of these files, types included, as paths from the root of the repository. */
function importsIn(files: readonly string[]): Import[] {
  return files.flatMap((from) =>
    // A path without its extension names a process to start.
    importsOf(join(ROOT, from))
      .filter((target) => target.endsWith('.ts'))
      .map((target) => ({ from, to: relative(ROOT, target) })),
  )
}

function printed(imports: readonly Import[]): string[] {
  return imports.map(({ from, to }) => `${from} → ${to}`)
}

/** The first cycle of a graph, as its nodes in order; null if there is none. */
function cycleIn(edges: readonly Import[]): string[] | null {
  const next = Map.groupBy(edges, ({ from }) => from)
  const done = new Set<string>()
  const follow = (node: string, path: readonly string[]): string[] | null => {
    if (path.includes(node)) return [...path.slice(path.indexOf(node)), node]
    if (done.has(node)) return null
    for (const { to } of next.get(node) ?? []) {
      const cycle = follow(to, [...path, node])
      if (cycle !== null) return cycle
    }
    done.add(node)
    return null
  }
  for (const node of next.keys()) {
    const cycle = follow(node, [])
    if (cycle !== null) return cycle
  }
  return null
}

/** The pair of sibling folders that an import connects; null within a folder or its subfolders. */
function foldersOf({ from, to }: Import): Import | null {
  const [one, other] = [dirname(from).split(sep), dirname(to).split(sep)]
  const shared = one.findIndex((name, depth) => name !== other[depth])
  if (shared < 0 || other[shared] === undefined) return null
  return { from: one.slice(0, shared + 1).join(sep), to: other.slice(0, shared + 1).join(sep) }
}

test('2.1 no folder has a meaningless name, and src has at most 8', () => {
  const rooms = readdirSync(join(ROOT, 'src'), { withFileTypes: true }).filter((entry) => entry.isDirectory())
  assert.ok(rooms.length <= 8, `${rooms.length} folders`)
  assertNone(
    SOURCES.flatMap((file) => dirname(file).split(sep)).filter((name) =>
      /^(utils?|helpers?|common|lib|misc|shared)$/.test(name),
    ),
  )
})

test('2.2 a change of one service cannot break the other', () => {
  const apart: Record<string, string[]> = {
    ingestion: ['src/consumer', 'src/foundation/store'],
    consumer: ['src/ingestion', 'src/foundation/binance', 'src/sandbox'],
  }
  const broken = importsIn(SOURCES).filter(({ from, to }) =>
    apart[roomOf(from)]?.some((folder) => to.startsWith(`${folder}${sep}`)),
  )
  assert.deepEqual(printed(broken), [])
})

test('2.3 imports point one way: from cli to tools, to programs and sandbox, to foundation', () => {
  assert.deepEqual(
    SOURCES.filter((file) => layerOf(file) < 0),
    [],
    'each folder of src has a layer',
  )
  const upward = importsIn(SOURCES).filter(
    ({ from, to }) => roomOf(from) !== roomOf(to) && layerOf(from) <= layerOf(to),
  )
  assert.deepEqual(printed(upward), [])
})

test('2.3 tools import no sandbox, except doctor, which examines what `up` needs', () => {
  const found = importsIn(SOURCES).filter(
    ({ from, to }) => from.startsWith('src/tools/') && !from.includes('/doctor/') && roomOf(to) === 'sandbox',
  )
  assert.deepEqual(printed(found), [])
})

test('2.3 a file never imports from the folder above its own', () => {
  const upward = importsIn(SOURCES).filter(({ from, to }) =>
    `${dirname(dirname(from))}${sep}`.startsWith(`${dirname(to)}${sep}`),
  )
  assert.deepEqual(printed(upward), [])
})

test('2.3 folders and files form no cycle, types included', () => {
  const files = [...SOURCES, ...globSync('{chaos,bench,scripts}/**/*.ts', { cwd: ROOT })]
  assert.equal(cycleIn(importsIn(files))?.join(' → '), undefined, 'files')
  const folders = importsIn(SOURCES).flatMap((one) => foldersOf(one) ?? [])
  assert.equal(cycleIn(folders)?.join(' → '), undefined, 'folders')
})

test('2.3 the search for cycles finds a planted one', () => {
  const edge = (from: string, to: string) => ({ from, to })
  assert.deepEqual(cycleIn([edge('a', 'b'), edge('b', 'c'), edge('c', 'b')]), ['b', 'c', 'b'])
  assert.equal(cycleIn([edge('a', 'b'), edge('a', 'c'), edge('b', 'c')]), null)
  assert.deepEqual(foldersOf(edge('src/a/b/x.ts', 'src/a/c/y.ts')), edge('src/a/b', 'src/a/c'))
  assert.equal(foldersOf(edge('src/a/x.ts', 'src/a/b/y.ts')), null)
})

test(`2.4 no source file is longer than ${LONGEST_FILE} lines`, () => {
  assertNone(SOURCES.filter((file) => linesOf(file) > LONGEST_FILE))
})

test(`2.4 a file below ${SHORTEST_FILE} lines has two importers or is a boundary`, () => {
  const others = globSync('{test,chaos,bench,scripts}/**/*.ts', { cwd: ROOT })
  const importers = Map.groupBy(importsIn([...SOURCES, ...others]), ({ to }) => to)
  const alone = SOURCES.filter(
    (file) =>
      linesOf(file) < SHORTEST_FILE &&
      new Set(importers.get(file)?.map(({ from }) => from)).size < 2 &&
      // Each command is a boundary.
      roomOf(file) !== 'cli',
  )
  assert.deepEqual(alone.sort(), Object.keys(SMALL_FILES).sort())
})

test(`2.4 at most ${MOST_SHORT_FILES} source files are below ${SHORTEST_FILE} lines`, () => {
  const short = SOURCES.filter((file) => linesOf(file) < SHORTEST_FILE)
  assert.ok(short.length <= MOST_SHORT_FILES, `${short.length}: ${short.join(', ')}`)
})

/** The message names what was found. */
function assertNone(found: readonly unknown[]): void {
  assert.deepEqual(found, [])
}

function linesOf(file: string): number {
  return read(file).split('\n').length - 1
}

test('2.5 a thing has one name everywhere: there are no default exports', () => {
  const files = [...SOURCES, ...globSync('{test,scripts,chaos,bench}/**/*.ts', { cwd: ROOT })]
  assertNone(files.filter((file) => /^export default\b/m.test(read(file))))
})

test('3.5 only the settings module reads the environment', () => {
  const handedOn = /process\.env(?!\['PATH'\])/
  const readers = SOURCES.filter((file) => !/^src\/(foundation\/settings|cli)\//.test(file))
  assertNone(readers.filter((file) => handedOn.test(read(file).replaceAll('...process.env', ''))))
})

test('3.5 .env.example lists every setting with its actual default, and sets none', () => {
  const example = read('.env.example')
  assert.deepEqual(parseEnv(example), {})
  const shown = new Map(Object.entries(parseEnv(example.replaceAll(/^#(?=[A-Z][A-Z0-9_]+=)/gm, ''))))
  const composeAlone = ['KAFKA_UI_PORT', 'PROMETHEUS_PORT', 'GRAFANA_PORT']
  assert.deepEqual([...shown.keys()].sort(), [...SETTING_NAMES, ...composeAlone].sort())
  for (const name of SETTING_NAMES) assert.equal(shown.get(name), DEFINITIONS[name].fallback ?? '', name)
  loadSettings(Object.fromEntries(shown), { cwd: import.meta.dirname })
})

test('3.6 .env.example explains every setting', () => {
  const all = examples().flatMap(({ settings }) => settings)
  assert.equal(all.length, SETTING_NAMES.length + 3)
  assertNone(all.filter(({ meaning }) => meaning.length < 10))
})

test('3.6 generated documents are up to date: scripts/with-node scripts/generate.ts', async () => {
  assert.deepEqual(await staleFiles(), [])
})

test('5.2 a test file is named after the folder that it tests', () => {
  const folders = SOURCES.flatMap((file) => dirname(file).split(sep).slice(1))
  const rooms = [...new Set([...folders, 'pipeline', 'repository'])]
  const files = globSync('test/**/*.test.ts', { cwd: ROOT }).map((file) => relative('test', file))
  assertNone(files.filter((file) => !rooms.some((room) => file.startsWith(`${room}-`))))
})

test('6.1 installs always bring the same versions', () => {
  for (const [name, version] of dependencies()) assert.match(version, /^\d+\.\d+\.\d+(-[\w.]+)?$/, name)
})

test('6.2 the lock file names no host', () => {
  assert.match(read('.npmrc'), /^omit-lockfile-registry-resolved=true$/m)
  assert.doesNotMatch(read('package-lock.json'), /"resolved"/)
})

test('6.2 npm ci accepts the lock file: it has the optional packages of every platform', () => {
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
  assertNone(
    dependencies()
      .map(([name]) => name)
      .filter((name) => !named(name)),
  )
})

test('6.4 the check of tracked files finds a planted host, folder and note, and nothing in plain text', () => {
  const host = ['https://registry', 'example', 'org/left-pad'].join('.')
  const folder = ['', 'home', 'somebody', 'tapeline'].join('/')
  const note = ['// TO', 'DO: later'].join('')
  for (const planted of [host, folder, note]) {
    assert.deepEqual(column(findingsIn('src/a.ts', `fine\n${planted}`), 'line'), [2], planted)
  }
  assertNone(findingsIn('docs/a.md', 'see https://example.org/home and ~/.cache/tapeline or ./root/x'))
})

function dependencies(): Array<[name: string, version: string]> {
  return ['dependencies', 'devDependencies'].flatMap((kind) =>
    Object.entries(Reflect.get(Object(manifest), kind) ?? {}).map(([name, version]): [string, string] => [
      name,
      String(version),
    ]),
  )
}
