/** A place in a partition; `offset` is that of the next message to read. */
export interface Position {
  readonly topic: string
  readonly partition: number
  readonly offset: number
  /** The leader epoch of the message before it; −1 or absent when it is not known. */
  readonly leaderEpoch?: number
}
