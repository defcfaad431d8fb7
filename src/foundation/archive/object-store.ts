/**
 * Where an archive's files are: a folder, or a bucket of an S3-compatible store. Keys are relative
 * paths with forward slashes. All methods reject with the error of the folder or store.
 */
export interface ObjectStore {
  /** As shown to people: without credentials. */
  readonly name: string
  /** A local folder for files that are being written. It exists after {@link prepare}. */
  readonly stagingFolder: string
  /**
   * Makes the store ready for writing. Programs that only read do not call it.
   *
   * @throws TapelineError `ARCHIVE` if it cannot create an object only if there is none
   */
  prepare(): Promise<void>
  /**
   * Creates an object if there is none under the key. It is durable when this resolves. After an
   * error it may exist, now or later.
   *
   * @returns whether the object has these bytes, from this call or an earlier one whose answer was lost
   */
  create(key: string, bytes: Uint8Array): Promise<boolean>
  /**
   * Creates an object under a key that nothing else uses. It is durable when this resolves.
   *
   * @param write writes a local file, which is removed if anything fails
   */
  putFile(key: string, write: (path: string) => Promise<void>): Promise<FileContent>
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
  /** Removes files that were being written more than a day ago: their processes were killed. */
  removeStale(nowMs: number): Promise<void>
  /**
   * Returns the path of a local file with the content of an object that is never overwritten. Its
   * name says nothing. It stays until {@link release}.
   *
   * @param expected what the archive knows of its content; `fresh`: not a copy from before
   * @throws TapelineError `ARCHIVE` if a downloaded object has other content; an error if it is missing
   */
  localCopy(key: string, expected?: FileContent | 'fresh'): Promise<string>
  /** Says that these paths of {@link localCopy} are no longer read. */
  release(paths: readonly string[]): Promise<void>
  /** Releases all paths, and ends the connections. */
  close(): Promise<void>
}

/** Size and SHA-256, in hexadecimal, of a file. */
export interface FileContent {
  readonly bytes: number
  readonly sha256: string
}
