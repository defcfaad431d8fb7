import type { ChildProcess } from 'node:child_process'
import { resolve } from 'node:path'
import type { TimeUnit } from '../../src/foundation/market/time-unit.ts'
import { spawnNode } from '../../src/sandbox/processes/child-process.ts'
import type { Fed } from './feed.ts'
import type { FeederOrder } from './main.ts'

const MAIN = resolve(import.meta.dirname, 'main.ts')

/** The benchmark's handle for the process that serves the frames. */
export class Feeder {
  readonly pid: number
  readonly wsUrl: string
  readonly restUrl: string
  readonly #child: ChildProcess
  readonly stop: () => Promise<unknown>

  private constructor(child: ChildProcess, stop: () => Promise<unknown>, urls: unknown) {
    this.#child = child
    this.pid = child.pid ?? 0
    this.stop = stop
    this.wsUrl = String(Reflect.get(Object(urls), 'wsUrl'))
    this.restUrl = String(Reflect.get(Object(urls), 'restUrl'))
  }

  /** @param frames what it sends: a simulated market, or recorded order books */
  static async start(
    frames: 'market' | 'depth',
    symbols: readonly string[],
    logFile: string,
    timeUnit: TimeUnit,
  ): Promise<Feeder> {
    const { child, running } = await spawnNode({
      script: MAIN,
      args: [frames, timeUnit, ...symbols],
      env: { PATH: process.env['PATH'] },
      logFile,
    })
    return new Feeder(child, () => running.stop(), await answerOf(child))
  }

  /** Generates this many frames ahead of time, from the first on. */
  async prepare(count: number): Promise<void> {
    await this.#tell({ order: 'prepare', count })
  }

  async rewind(): Promise<void> {
    await this.#tell({ order: 'rewind' })
  }

  /** @param perSecond null: as fast as the client reads */
  async feed(count: number, perSecond: number | null): Promise<Fed> {
    return fedOf(await this.#tell({ order: 'feed', count, perSecond }))
  }

  /**
   * Sends to several clients at once as fast as they read: to each an equal part, with only its
   * symbols.
   */
  async feedShards(count: number, shards: number): Promise<Fed> {
    return fedOf(await this.#tell({ order: 'feedShards', count, shards }))
  }

  #tell(order: FeederOrder): Promise<unknown> {
    const answer = answerOf(this.#child)
    this.#child.send(order)
    return answer
  }
}

function fedOf(done: unknown): Fed {
  return {
    startedUs: Number(Reflect.get(Object(done), 'startedUs')),
    endedUs: Number(Reflect.get(Object(done), 'endedUs')),
  }
}

/** @throws the error that the feeder reports, or an error if it exits */
function answerOf(child: ChildProcess): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const onExit = () => reject(new Error('The feeder exited'))
    child.once('exit', onExit)
    child.once('message', (message) => {
      child.off('exit', onExit)
      const failed: unknown = Reflect.get(Object(message), 'failed')
      if (failed === undefined) resolve(Reflect.get(Object(message), 'done'))
      else reject(new Error(String(failed)))
    })
  })
}
