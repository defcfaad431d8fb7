/** A process under measurement. */
export interface Measured {
  readonly pid: number
  /** URL where it answers `/status`; null if it has none. */
  readonly url: string | null
  /** All its output so far. */
  output(): string
  /** Sends SIGTERM; resolves when the process has exited. */
  stop(): Promise<void>
}

/** A pipeline with its own empty topics and tables. */
export interface Pipeline {
  readonly databaseUrl: string
  /** The topics it writes its events to. */
  readonly topics: readonly [trades: string, bookTicker: string]
  /** Partitions of each topic. */
  readonly partitions: number
  /** The consumer group whose committed offsets show its progress. */
  readonly group: string
  /** Its tables of events with an event time, and of those without. */
  readonly tables: { readonly timed: string; readonly untimed: string | null }
  startIngestion(settings?: Readonly<Record<string, string>>): Promise<Measured>
  startConsumer(settings?: Readonly<Record<string, string>>): Promise<Measured>
  /**
   * Returns the pipeline with another, empty database and another group, to store the topics'
   * messages again from the start.
   */
  again(): Promise<Pipeline>
  removeDatabase(): Promise<void>
  /** Also removes the topics. */
  remove(): Promise<void>
}
