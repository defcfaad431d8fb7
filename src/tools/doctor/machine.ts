import { statfsSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import type { Settings } from '../../foundation/settings/load.ts'
import { explainPort, portProblem } from '../../foundation/telemetry/port-problem.ts'
import {
  archiveStatus,
  consumerStatus,
  dashboardStatus,
  ingestionStatus,
  serviceUrl,
} from '../../foundation/telemetry/service-status.ts'
import { javaVersion, MINIMUM_JAVA, mavenVersion } from '../../sandbox/kafka-broker/java.ts'
import { ofReceipts } from './database.ts'
import { bad, type Finding, good, notNeeded, serviceFinding, warning } from './finding.ts'

/** The minimum in package.json. */
const MINIMUM_NODE = '24.6'
const GIB = 1024 ** 3
/** Space for a day of three symbols in Kafka and the database, and for downloads. */
const LEAST_FREE_BYTES = 5 * GIB

export function checkNode(): Finding[] {
  const version = process.versions.node
  if (version.localeCompare(MINIMUM_NODE, 'en', { numeric: true }) >= 0) return [good('Node', version)]
  const fix = 'Start Tapeline with bin/tapeline, which fetches the right version.'
  return [bad('Node', `${version}, needs ${MINIMUM_NODE}`, fix)]
}

/** @param isNeeded false when an external broker is configured */
export async function checkJava(isNeeded: boolean): Promise<Finding[]> {
  if (!isNeeded) return [notNeeded('Java, Maven', 'not needed: Kafka runs elsewhere')]
  return [
    await found('Java', `${MINIMUM_JAVA} or later`, javaVersion),
    await found('Maven', 'to fetch Kafka', mavenVersion),
  ]
}

async function found(what: string, wanted: string, ask: () => Promise<string>): Promise<Finding> {
  try {
    return good(what, await ask())
  } catch (error) {
    const { message, fix } = Object(error)
    return bad(what, `${String(message)} (${wanted})`, String(fix ?? ''))
  }
}

/** @param isRunning whether our `up` runs here and uses the ports */
export async function checkPorts(settings: Settings, isRunning: boolean): Promise<Finding[]> {
  if (isRunning) return [good('Ports', 'used by the running `up`')]
  const names = ['INGEST_PORT', 'CONSUMER_PORT', 'ARCHIVE_PORT', 'DASHBOARD_PORT'] as const
  const findings = await Promise.all(
    names.map(async (name): Promise<Finding[]> => {
      const port = settings[name]
      const code = await portProblem(port, settings.HTTP_HOST)
      if (code === null) return [good(name, `${port} is free`)]
      const url = serviceUrl(settings, name)
      const own = code === 'EADDRINUSE' ? await SERVICES[name](url) : null
      if (own !== null)
        return [serviceFinding(name, url, own), ...('clockOffsetMs' in own ? ofReceipts(own) : [])]
      const { text, fix } = explainPort(code, port, settings.HTTP_HOST, name)
      // Most have no archive.
      if (name === 'ARCHIVE_PORT') return [warning(name, `${text}; only an archive needs it`, fix)]
      return [bad(name, text, fix)]
    }),
  )
  return findings.flat()
}

/** Reads the status of a Tapeline service; null if another program answers. */
const SERVICES = {
  INGEST_PORT: ingestionStatus,
  CONSUMER_PORT: consumerStatus,
  ARCHIVE_PORT: archiveStatus,
  DASHBOARD_PORT: dashboardStatus,
} as const

/** Checks the free space where `up` keeps its data. */
export function checkDisk({ DATA_DIR }: Settings): Finding[] {
  const free = freeBytes(resolve(DATA_DIR))
  const text = `${(free / GIB).toFixed(1)} GiB free below ${DATA_DIR}`
  if (free >= LEAST_FREE_BYTES) return [good('Disk', text)]
  const fix = 'Free some space, or set DATA_DIR to another disk. bin/tapeline clean lists the data kept here.'
  return [warning('Disk', text, fix)]
}

/** The free space at the path, or at its nearest existing parent. */
function freeBytes(path: string): number {
  try {
    const { bavail, bsize } = statfsSync(path)
    return bavail * bsize
  } catch (error) {
    if (Reflect.get(Object(error), 'code') !== 'ENOENT') throw error
    return freeBytes(dirname(path))
  }
}
