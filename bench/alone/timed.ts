export interface Timed {
  readonly perSecond: number
  /** Processor time of this process for each, in microseconds. */
  readonly micros: number
}

/** Does something that is about so many messages. */
export async function timed(messages: number, work: () => Promise<void> | void): Promise<Timed> {
  const cpu = process.cpuUsage()
  const startedMs = performance.now()
  await work()
  const seconds = (performance.now() - startedMs) / 1000
  const { user, system } = process.cpuUsage(cpu)
  return { perSecond: messages / seconds, micros: (user + system) / messages }
}
