import { Writable } from 'node:stream'
import { pino } from 'pino'
import { type Clock, systemClock } from '../../src/foundation/runtime/clock.ts'
import { loadSettings } from '../../src/foundation/settings/load.ts'
import { type IngestionConfig, ingestionConfig } from '../../src/ingestion/config.ts'
import { ports } from '../../src/ingestion/ports.ts'
import { Ingestion } from '../../src/ingestion/service.ts'

/** Ingestion in this process, for a clock or configuration that settings do not offer. */
export function startIngestionHere(
  env: Readonly<Record<string, string>>,
  { clock = systemClock(), ...changes }: Partial<IngestionConfig> & { readonly clock?: Clock },
) {
  const config = { ...ingestionConfig(loadSettings(env, { cwd: '/nonexistent' })), ...changes }
  /** Its log lines so far, as JSON. */
  const said: string[] = []
  const log = new Writable({
    write(chunk, _encoding, done) {
      said.push(String(chunk))
      done()
    },
  })
  const ingestion = new Ingestion(config, ports(config, clock), pino(log))
  ingestion.start()
  return {
    ingestion,
    said,
    async [Symbol.asyncDispose]() {
      await ingestion.stop(AbortSignal.timeout(8000))
    },
  }
}

/** A clock that advances `factor` times as fast as this machine's. */
export function fastClock(factor: number): Clock {
  const { monotonicMs: now, wallMicros, schedule } = systemClock()
  const [startMs, startMicros] = [now(), wallMicros()]
  const passedMs = () => (now() - startMs) * factor
  return {
    monotonicMs: () => startMs + passedMs(),
    wallMicros: () => Math.floor(startMicros + passedMs() * 1000),
    schedule: (delayMs, run) => schedule(delayMs / factor, run),
  }
}
