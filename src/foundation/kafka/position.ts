/** A position in a partition; `offset` is the next message to read. */
export interface Position {
  readonly topic: string
  readonly partition: number
  readonly offset: number
  /** The leader epoch of the message before it; −1 or absent if unknown. */
  readonly leaderEpoch?: number
}
