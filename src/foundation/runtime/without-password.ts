/** Database URL parameters whose values may be shown; any other may contain a password. */
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

/** Returns a URL to show: without its password, or `***` if another part may contain one. */
export function withoutPassword(url: string): string {
  const parsed = URL.parse(url)
  // `user:password` alone is a URL without a host. A slash in a password ends the host, and the
  // rest counts as the path.
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
