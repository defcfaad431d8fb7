/** Parameters of a database's URL whose values may be shown: a password may stand under any other name. */
const HARMLESS_PARAMETERS: ReadonlySet<string> = new Set([
  'sslmode',
  'sslrootcert',
  'sslcert',
  'sslkey',
  'host',
  'port',
  'user',
  'dbname',
  'application_name',
  'connect_timeout',
])

/** A URL as it may be shown: without its password, and not at all where one may lie in another part of it. */
export function withoutPassword(url: string): string {
  const parsed = URL.parse(url)
  // `user:password` alone is a URL too, without a host. A slash in a password ends the host, and the rest counts as path.
  if (
    parsed === null ||
    parsed.host === '' ||
    `${parsed.pathname}${parsed.search}${parsed.hash}`.includes('@')
  )
    return '***'
  if (parsed.password !== '') parsed.password = '***'
  for (const name of [...parsed.searchParams.keys()]) {
    if (!HARMLESS_PARAMETERS.has(name)) parsed.searchParams.set(name, '***')
  }
  if (parsed.hash !== '') parsed.hash = '***'
  return parsed.toString()
}
