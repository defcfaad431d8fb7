import { join } from 'node:path'
import type { Settings } from '../settings/load.ts'
import { openFolderStore } from './folder-store.ts'
import type { ObjectStore } from './object-store.ts'

/** Where an archive is. */
export interface ArchiveLocation {
  /** A folder, or `s3://bucket/prefix`. */
  readonly url: string
  /** For an archive in a bucket. */
  readonly access?: BucketAccess
}

export interface BucketAccess {
  /** Null for AWS. */
  readonly endpoint: string | null
  readonly region: string
  /** Copies of files, and files before their upload. */
  readonly cacheFolder: string
  readonly cacheBytes: number
}

export function archiveLocation(settings: Settings): ArchiveLocation {
  return {
    url: settings.ARCHIVE_URL,
    access: {
      endpoint: settings.ARCHIVE_S3_ENDPOINT ?? null,
      region: settings.ARCHIVE_S3_REGION,
      cacheFolder: settings.ARCHIVE_CACHE ?? join(settings.DATA_DIR, 'cache', 'archive'),
      cacheBytes: settings.ARCHIVE_CACHE_MB * 2 ** 20,
    },
  }
}

/** Opens the store of an archive. Call {@link ObjectStore.prepare} before writing. */
export async function openStore({ url, access }: ArchiveLocation): Promise<ObjectStore> {
  const [, bucket, prefix = ''] = /^s3:\/\/([^/]+)\/?(.*)$/.exec(url) ?? []
  if (bucket === undefined) return openFolderStore(url)
  if (access === undefined) throw new Error(`${url} is in a bucket, and nothing says how to access it`)
  // Imported here, since the library of AWS takes a while to load.
  const { S3Store } = await import('./s3-store.ts')
  return new S3Store({ bucket, prefix, ...access })
}
