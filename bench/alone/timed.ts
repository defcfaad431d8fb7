export interface Timed {
  readonly perSecond: number
  /** CPU time of this process per message, in microseconds. */
  readonly micros: number
}

/** Measures an operation on this number of messages. */
export async function timed(messages: number, work: () => Promise<void> | void): Promise<Timed> {
  const cpu = process.cpuUsage()
  const startedMs = performance.now()
  await work()
  const seconds = (performance.now() - startedMs) / 1000
  const { user, system } = process.cpuUsage(cpu)
  return { perSecond: messages / seconds, micros: (user + system) / messages }
}
