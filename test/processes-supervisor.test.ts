import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterEach, beforeEach, test } from 'node:test'
import { type RunningProcess, spawnNode } from '../src/sandbox/processes/child-process.ts'
import { lockFolder } from '../src/sandbox/processes/folder-lock.ts'
import { identify } from '../src/sandbox/processes/process-identity.ts'
import { cleanUpLeftOvers, recordProcess } from '../src/sandbox/processes/process-registry.ts'
import { type Part, Supervisor } from '../src/sandbox/processes/supervisor.ts'
import { until, within } from './support/wait-for.ts'

let folder: string
let children: RunningProcess[]

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'supervisor-'))
  children = []
})

afterEach(async () => {
  for (const child of children) {
    child.kill()
    await child.exited
  }
})

/** A process that never ends. It may import from `processes`, the folder of the tested modules. */
function program(name: string, code: string): string {
  const path = join(folder, `${name}.ts`)
  const imports = `import { appendFileSync } from 'node:fs'
    import { lockFolder } from '${resolve('src/sandbox/processes/folder-lock.ts')}'
    import { spawnNode } from '${resolve('src/sandbox/processes/child-process.ts')}'`
  writeFileSync(path, `${imports}\n${code}\nsetInterval(() => {}, 1000)`)
  return path
}

/** One that reports when it runs, and records a requested shutdown. */
function script(name: string, onTerm = 'process.exit(0)'): string {
  return program(
    name,
    `process.on('SIGTERM', () => { appendFileSync('${folder}/order', '${name}\\n'); ${onTerm} })
    appendFileSync('${folder}/started', '${name}\\n')`,
  )
}

async function run(path: string, limit: { graceMs?: number } = {}): Promise<RunningProcess> {
  const { running } = await spawnNode({ script: path, args: [], env: {}, logFile: `${folder}/log`, ...limit })
  children.push(running)
  return running
}

function started(count: number): Promise<boolean> {
  return until(`${count} starts`, () => linesOf('started').length >= count)
}

function linesOf(name: string): string[] {
  return readFileSync(join(folder, name), 'utf8').trim().split('\n')
}

function isGone(pid: number): boolean {
  return identify(pid) === null
}

const noEvents = { onRestart() {}, onRestarted() {}, onFinished() {}, onFatal() {} }

test('a crashed part is restarted, and a stop ends the parts in the requested order', async () => {
  const restarts: string[] = []
  const supervisor = new Supervisor(
    { ...noEvents, onRestart: (name) => restarts.push(name) },
    { initialMs: 10, maxMs: 10 },
  )
  const part = (name: Part['name']): Part => ({ name, start: () => run(script(name)) })
  const first = await supervisor.run(part('ingest'))
  await supervisor.run(part('kafka'))
  await started(2)
  process.kill(first.pid, 'SIGKILL')
  await started(3)
  assert.deepEqual(restarts, ['ingest'])

  supervisor.beginStop()
  await supervisor.stop('ingest')
  await supervisor.stop('kafka')
  await within(5000, 'the watchers', () => supervisor.stopRest())
  assert.deepEqual(linesOf('order'), ['ingest', 'kafka'])
  assert.ok(children.every(({ pid }) => isGone(pid)))
})

test('a part that would only fail again is not restarted, and the reason is reported', async () => {
  const fatal: string[] = []
  const supervisor = new Supervisor(
    { ...noEvents, onFatal: (error) => fatal.push(error.message) },
    { initialMs: 1, maxMs: 1 },
  )
  const path = program('exits', 'process.exit(2)')
  await supervisor.run({
    name: 'consume',
    start: () => run(path),
    hopeless: ({ code }) => (code === 2 ? new Error('settings are wrong') : null),
  })
  await until('the reason', () => fatal.length === 1)
  await supervisor.stopRest()
  assert.deepEqual(fatal, ['settings are wrong'])
  assert.equal(children.length, 1)
})

test('a part that does not stop in time is killed', async () => {
  const stubborn = await run(script('stubborn', ''), { graceMs: 300 })
  await started(1)
  const exit = await within(10_000, 'the stop', () => stubborn.stop())
  assert.equal(exit.signal, 'SIGKILL')
})

test('no child outlives a killed parent', async () => {
  const parent = await run(
    program(
      'parent',
      `const options = { script: '${script('child')}', args: [], env: {}, logFile: '${folder}/log' }
      appendFileSync('${folder}/pid', String((await spawnNode(options)).running.pid))`,
    ),
  )
  await started(1)
  const pid = Number(await until('the pid of the child', () => linesOf('pid')[0]))
  parent.kill()
  await until('the end of the child', () => isGone(pid))
  assert.deepEqual(linesOf('order'), ['child'], 'it must have been asked to stop, not killed')
})

test('processes of a killed run are ended, and an unrelated process with a reused pid is not', async () => {
  const runDir = join(folder, 'run')
  const [leftOver, stranger] = [await run(script('left')), await run(script('stranger'))]
  await started(2)
  recordProcess(runDir, 'kafka', leftOver)
  writeFileSync(join(runDir, 'ingest.json'), JSON.stringify({ pid: stranger.pid, startTime: 'another one' }))
  const ended = await within(20_000, 'the cleaning', () => cleanUpLeftOvers(runDir, 5000))
  assert.deepEqual(ended, [{ role: 'kafka', pid: leftOver.pid }])
  assert.ok(isGone(leftOver.pid))
  assert.ok(!isGone(stranger.pid))
  assert.deepEqual(await cleanUpLeftOvers(runDir), [])
})

test('a folder has one user at a time, and the lock of a killed process blocks nobody', async () => {
  const data = join(folder, 'data')
  const code = `lockFolder('${data}'); appendFileSync('${folder}/started', 'holder\\n')`
  const holder = await run(program('holder', code))
  await started(1)
  assert.throws(() => lockFolder(data, (pid) => `kill ${pid}`), {
    message: new RegExp(`in use by process ${holder.pid}`),
    fix: `kill ${holder.pid}`,
  })
  holder.kill()
  await holder.exited
  const unlock = lockFolder(data)
  assert.throws(() => lockFolder(data), /in use/)
  unlock()
  lockFolder(data)()
})

test('a folder that cannot be created is named with what to do', () => {
  const file = join(folder, 'file')
  writeFileSync(file, '')
  // Node's recursive mkdir never returns in /proc.
  lockFolder(`${folder}/new/./data`)()
  for (const impossible of ['/proc/tapeline/data', file, join(file, 'data')])
    assert.throws(() => lockFolder(impossible), {
      message: new RegExp(`^${impossible} is not a folder and cannot be created: `),
      fix: 'Set DATA_DIR to another directory.',
    })
})
