import type { Base } from '@platformatic/kafka'
import { TapelineError } from '../runtime/errors.ts'

/** By client, which lasts as long as its connections. */
const ranges = new WeakMap<Base, ReturnType<Base['listApis']>>()

/**
 * Returns the newest of our versions of a request that the brokers support, as ApiVersions says.
 *
 * @param ours newest first
 * @throws TapelineError `KAFKA` if there is none: the brokers are too old, or newer than our codec
 */
export async function usableApi<Api extends { readonly version: number }>(
  client: Base,
  request: string,
  ours: readonly Api[],
): Promise<Api> {
  const asked = ranges.get(client) ?? client.listApis()
  ranges.set(client, asked)
  const all = await asked.catch((error: unknown) => {
    ranges.delete(client)
    throw error
  })
  const range = all.find(({ name }) => name === request)
  const { minVersion = 0, maxVersion = -1 } = range ?? {}
  const api = ours.find(({ version }) => version >= minVersion && version <= maxVersion)
  if (api !== undefined) return api
  const newest = ours[0]?.version ?? 0
  const theirs =
    range === undefined ? `do not support ${request}` : `support ${request} ${minVersion} to ${maxVersion}`
  throw new TapelineError(
    'KAFKA',
    `The brokers ${theirs}; Tapeline supports ${request} ${ours.at(-1)?.version} to ${newest}`,
    {
      fix:
        minVersion > newest
          ? 'The brokers are newer than this version of Tapeline: upgrade Tapeline, or use a version of Kafka that docs/support.md names.'
          : 'Upgrade the brokers to a version of Kafka that docs/support.md names.',
    },
  )
}
