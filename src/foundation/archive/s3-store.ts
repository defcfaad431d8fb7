import { createHash, randomUUID } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import {
  DeleteObjectCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  type ListObjectsV2CommandInput,
  PutObjectCommand,
  type PutObjectCommandInput,
  paginateListObjectsV2,
  S3Client,
} from '@aws-sdk/client-s3'
import { TapelineError } from '../runtime/errors.ts'
import { type Download, FileCache } from './file-cache.ts'
import { localFiles } from './local-files.ts'
import type { FileContent, ObjectStore } from './object-store.ts'
import { s3Code, s3Error, statusOf } from './s3-error.ts'

export interface S3Options {
  readonly bucket: string
  /** Without slashes at its ends; empty for the whole bucket. */
  readonly prefix: string
  /** Null for AWS. */
  readonly endpoint: string | null
  readonly region: string
  readonly cacheFolder: string
  readonly cacheBytes: number
  /** Time without a byte in either direction after which a request has failed. */
  readonly silenceLimitMs?: number
}

const SILENCE_LIMIT_MS = 20_000
const CONNECT_LIMIT_MS = 5000

/** Attempts for a request, by the library or here. */
const ATTEMPTS = 3

/** Shows at each start whether the store creates an object only if there is none. */
const PROBE = '_probe.json'

/** Answers to a conditional PUT for an object that exists, or that another request is creating. */
const CONFLICTS: ReadonlySet<number | null> = new Set([409, 412])

/**
 * A store in a bucket of S3 or a compatible service. Credentials come from the environment or the
 * machine, as for every program that uses the AWS library.
 */
export class S3Store implements ObjectStore {
  readonly name: string
  /** The same for errors, with the endpoint. */
  readonly #shown: string
  readonly #bucket: string
  readonly #prefix: string
  readonly #client: S3Client
  readonly #cache: FileCache

  constructor({ bucket, prefix, endpoint, region, cacheFolder, cacheBytes, silenceLimitMs }: S3Options) {
    this.#bucket = bucket
    this.#prefix = prefix === '' ? '' : `${prefix}/`
    this.name = `s3://${[bucket, prefix].filter((part) => part !== '').join('/')}`
    this.#shown = endpoint === null ? this.name : `${this.name} at ${endpoint}`
    this.#cache = new FileCache({ folder: cacheFolder, maxBytes: cacheBytes })
    this.#client = new S3Client({
      region,
      ...(endpoint === null ? {} : { endpoint, forcePathStyle: true }),
      // Compatible services do not know the newer checksums.
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      maxAttempts: ATTEMPTS,
      // Errors are thrown; it would also print them.
      logger: { debug() {}, info() {}, warn() {}, error() {} },
      requestHandler: {
        socketTimeout: silenceLimitMs ?? SILENCE_LIMIT_MS,
        connectionTimeout: CONNECT_LIMIT_MS,
      },
    })
  }

  get stagingFolder(): string {
    return this.#cache.ownFolder
  }

  async prepare(): Promise<void> {
    await this.#cache.open()
    // The first one may be there already; the second one must not replace it.
    const bytes = () => Buffer.from(`${JSON.stringify({ probe: randomUUID() })}\n`)
    await this.create(PROBE, bytes())
    if (await this.create(PROBE, bytes())) {
      throw new TapelineError(
        'ARCHIVE',
        `${this.#shown} ignores If-None-Match, and would overwrite records`,
        {
          fix: 'Use a store that supports conditional writes: docs/archive.md names some.',
        },
      )
    }
  }

  async create(key: string, bytes: Uint8Array): Promise<boolean> {
    for (let conflicts = 0; ; conflicts++) {
      try {
        await this.#put(key, { Body: bytes, ContentMD5: md5(bytes), IfNoneMatch: '*' })
        return true
      } catch (error) {
        // The object may be ours all the same: a conflict after a request that was repeated, or an
        // error after it was stored.
        const found = await this.read(key).catch(() => {
          // Unknown now; the caller's next attempt finds out.
          throw this.#explained(error, `PUT ${key}`)
        })
        if (found !== null) return found.equals(bytes)
        // Another request for the key was under way and has failed.
        if (!CONFLICTS.has(statusOf(error)) || conflicts === ATTEMPTS)
          throw this.#explained(error, `PUT ${key}`)
      }
    }
  }

  async putFile(key: string, write: (path: string) => Promise<void>): Promise<FileContent> {
    const staged = join(this.stagingFolder, `${randomUUID()}.parquet`)
    try {
      await write(staged)
      const content = await localFiles.hash(staged)
      await this.#upload(key, staged, content.bytes)
      return content
    } finally {
      await rm(staged, { force: true })
    }
  }

  async removeStale(): Promise<void> {
    // The cache does.
  }

  async #upload(key: string, stagedPath: string, size: number): Promise<void> {
    const ContentMD5 = await md5OfFile(stagedPath)
    for (let attempt = 1; ; attempt++) {
      // A stream is read once, so the library does not repeat this.
      const body = createReadStream(stagedPath)
      try {
        await this.#put(key, { Body: body, ContentLength: size, ContentMD5 })
        return
      } catch (error) {
        if (attempt === ATTEMPTS) throw this.#explained(error, `PUT ${key}`)
      } finally {
        body.destroy()
      }
    }
  }

  async read(key: string): Promise<Buffer | null> {
    try {
      for (let attempt = 1; ; attempt++) {
        const { Body } = await this.#client.send(this.#get(key))
        try {
          return Buffer.from((await Body?.transformToByteArray()) ?? [])
        } catch (error) {
          // The library does not repeat an answer that was cut.
          if (attempt === ATTEMPTS) throw error
        }
      }
    } catch (error) {
      if (await this.#isMissing(error, key)) return null
      throw this.#explained(error, `GET ${key}`)
    }
  }

  async list(folder: string, after = ''): Promise<string[]> {
    const keys: string[] = []
    const start = after === '' ? {} : { StartAfter: this.#full(after) }
    for await (const { Contents } of this.#pages(folder, start))
      for (const { Key } of Contents ?? []) if (Key !== undefined) keys.push(Key.slice(this.#prefix.length))
    // Some compatible services sort in another way.
    return keys.filter((key) => key > after).sort()
  }

  async folders(folder: string): Promise<string[]> {
    const names: string[] = []
    const above = this.#inside(folder)
    for await (const { CommonPrefixes } of this.#pages(folder, { Delimiter: '/' }))
      for (const { Prefix } of CommonPrefixes ?? [])
        if (Prefix !== undefined) names.push(Prefix.slice(above.length, -1))
    return names.sort()
  }

  async isEmpty(): Promise<boolean> {
    for await (const { Contents } of this.#pages('', { MaxKeys: 10 }))
      if (Contents?.some(({ Key }) => Key !== this.#full(PROBE))) return false
    return true
  }

  async remove(key: string): Promise<void> {
    try {
      await this.#client.send(new DeleteObjectCommand({ Bucket: this.#bucket, Key: this.#full(key) }))
    } catch (error) {
      if (!isMissing(error)) throw this.#explained(error, `DELETE ${key}`)
    }
  }

  localCopy(key: string, expected?: FileContent | 'fresh'): Promise<string> {
    return this.#cache.copy(`${this.#shown} ${key}`, expected, () => this.#download(key))
  }

  release(paths: readonly string[]): Promise<void> {
    return this.#cache.release(paths)
  }

  async close(): Promise<void> {
    this.#client.destroy()
    await this.#cache.close()
  }

  async #download(key: string): Promise<Download> {
    const failed = (error: unknown) => this.#explained(error, `GET ${key}`)
    try {
      const { Body, ContentLength } = await this.#client.send(this.#get(key))
      if (!(Body instanceof Readable) || ContentLength === undefined)
        throw new Error('the answer has no content')
      return { bytes: ContentLength, chunks: explained(Body, failed), close: () => void Body.destroy() }
    } catch (error) {
      // Compaction may have replaced it: the caller knows.
      throw (await this.#isMissing(error, key))
        ? new Error(`${key} is missing in ${this.#shown}`)
        : failed(error)
    }
  }

  /**
   * Whether a GET failed because there is no such object. Some stores answer 403 then, if the right to
   * list has a condition: Ceph until 2026 (github.com/ceph/ceph/pull/68577).
   */
  async #isMissing(error: unknown, key: string): Promise<boolean> {
    if (statusOf(error) !== 403) return isMissing(error)
    const command = new ListObjectsV2Command({ Bucket: this.#bucket, Prefix: this.#full(key), MaxKeys: 1 })
    const listed = await this.#client.send(command).catch(() => {
      // The first error says why.
      throw this.#explained(error, `GET ${key}`)
    })
    return listed.Contents?.[0]?.Key !== this.#full(key)
  }

  async #put(key: string, input: Omit<PutObjectCommandInput, 'Bucket' | 'Key'>): Promise<void> {
    await this.#client.send(new PutObjectCommand({ Bucket: this.#bucket, Key: this.#full(key), ...input }))
  }

  #get(key: string): GetObjectCommand {
    return new GetObjectCommand({ Bucket: this.#bucket, Key: this.#full(key) })
  }

  /** @param folder of the archive; empty for all */
  async *#pages(folder: string, input: Omit<ListObjectsV2CommandInput, 'Bucket' | 'Prefix'>) {
    const Prefix = this.#inside(folder)
    const pages = paginateListObjectsV2({ client: this.#client }, { Bucket: this.#bucket, Prefix, ...input })
    yield* explained(pages, (error) => this.#explained(error, `LIST ${Prefix}`))
  }

  #inside(folder: string): string {
    return this.#full(folder === '' ? '' : `${folder}/`)
  }

  #full(key: string): string {
    return this.#prefix + key
  }

  #explained(error: unknown, what: string): TapelineError {
    return s3Error(error, this.#shown, what)
  }
}

/** Passes on what is read; only errors of the source are changed. */
async function* explained<Item>(
  source: AsyncIterable<Item>,
  explain: (error: unknown) => Error,
): AsyncGenerator<Item, void> {
  const items = source[Symbol.asyncIterator]()
  for (;;) {
    const next = await items.next().catch((error: unknown) => {
      throw explain(error)
    })
    if (next.done === true) return
    yield next.value
  }
}

function isMissing(error: unknown): boolean {
  return statusOf(error) === 404 && s3Code(error) !== 'NoSuchBucket'
}

function md5(bytes: Uint8Array): string {
  return createHash('md5').update(bytes).digest('base64')
}

/** The store compares it with what it received. */
async function md5OfFile(path: string): Promise<string> {
  const hash = createHash('md5')
  await pipeline(createReadStream(path), hash)
  return hash.digest('base64')
}
