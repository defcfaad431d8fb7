/**
 * Where an archive's files are: a folder, or a bucket of an S3-compatible store. Keys are relative
 * paths with forward slashes. All methods reject with the error of the folder or store.
 */
export interface ObjectStore {
  /** As shown to people: without credentials. */
  readonly name: string
  /** A local folder for files that {@link putFile} takes over. */
  readonly stagingFolder: string
  /**
   * Creates an object if there is none under the key. It is durable when this resolves.
   *
   * @returns false if there is one already, even one that an earlier call of ours created
   */
  create(key: string, bytes: Uint8Array): Promise<boolean>
  /** Moves a staged file to a key that nothing else uses. It is durable when this resolves. */
  putFile(key: string, stagedPath: string): Promise<void>
  /** Returns null if there is no such object. */
  read(key: string): Promise<Buffer | null>
  /**
   * Returns the keys that begin with `folder/`, sorted by their bytes.
   *
   * @param after only keys above this one
   */
  list(folder: string, after?: string): Promise<string[]>
  /** Returns the names of the folders directly in a folder, sorted. */
  folders(folder: string): Promise<string[]>
  /** Whether it has no objects at all. */
  isEmpty(): Promise<boolean>
  /** Deletes an object, if it exists. */
  remove(key: string): Promise<void>
  /** Returns a path or URL that the engine can read. */
  pathOf(key: string): string
}
