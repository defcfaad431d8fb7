import { readFileSync } from 'node:fs'
import { startConsumerProcess } from './services.ts'
import { until } from './wait-for.ts'

/**
 * Runs one consumer until it has consumed and stored this many messages, then stops it.
 *
 * @returns seconds from the first consumed message to the last stored one; MiB of resident memory:
 *   the peak according to the kernel, and at each tenth of the messages
 */
export async function drain(env: Readonly<Record<string, string>>, messages: number, timeoutMs: number) {
  await using consumer = await startConsumerProcess(env)
  const { pid } = consumer.command
  let startedMs: number | null = null
  const residentMiB: number[] = []
  const status = await until(
    `${messages} messages to be drained`,
    async () => {
      const now = await consumer.status()
      const { consumed, pending } = now.counters
      if (consumed > 0) startedMs ??= performance.now()
      if (consumed >= (messages / 10) * residentMiB.length) residentMiB.push(kernelMiB(pid, 'VmRSS'))
      return consumed >= messages && pending === 0 ? now : undefined
    },
    timeoutMs,
  )
  const seconds = (performance.now() - (startedMs ?? 0)) / 1000
  const peakMiB = kernelMiB(pid, 'VmHWM')
  await consumer.stop()
  return { status, seconds, messagesASecond: Math.round(messages / seconds), peakMiB, residentMiB }
}

function kernelMiB(pid: number, field: 'VmRSS' | 'VmHWM'): number {
  const line = readFileSync(`/proc/${pid}/status`, 'utf8')
    .split('\n')
    .find((one) => one.startsWith(field))
  return Math.round(Number(line?.replaceAll(/\D/g, '')) / 1024)
}
