/** A process that is measured. */
export interface Measured {
  readonly pid: number
  /** Where it answers `/status`; null for one that does not. */
  readonly url: string | null
  /** Everything it has written. */
  output(): string
  /** SIGTERM; resolves when it has ended. */
  stop(): Promise<void>
}

/** A pipeline in a fresh place: topics and tables of its own, and nothing in them. */
export interface Pipeline {
  readonly databaseUrl: string
  /** The topics it writes its events to. */
  readonly topics: readonly [trades: string, bookTicker: string]
  /** Of each of them. */
  readonly partitions: number
  /** The consumer group whose committed offsets tell how far it has got. */
  readonly group: string
  /** Both of its tables, with what the columns are called. */
  readonly tables: { readonly trades: string; readonly bookTicker: string }
  startIngestion(settings?: Readonly<Record<string, string>>): Promise<Measured>
  startConsumer(settings?: Readonly<Record<string, string>>): Promise<Measured>
  /** Another database, empty, and another group: what the topics hold can be stored once more, from the beginning. */
  again(): Promise<Pipeline>
  removeDatabase(): Promise<void>
  /** The topics too. */
  remove(): Promise<void>
}
