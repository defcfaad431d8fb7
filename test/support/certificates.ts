import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

/** Paths of PEM files: a certificate and its private key, in PKCS #8 without a password. */
export interface KeyPair {
  readonly cert: string
  readonly key: string
}

const DAYS = '2'
/** Ignores the machine's OpenSSL configuration. */
const CONFIG = '[req]\ndistinguished_name = dn\n[dn]\n'

export type TestAuthority = Awaited<ReturnType<typeof createAuthority>>

/** Creates an authority for a test, with `openssl` 3; its files are in `folder`, under `name`. */
export async function createAuthority(folder: string, name: string) {
  const config = join(folder, 'openssl.cnf')
  await writeFile(config, CONFIG)
  const request = async (file: string, commonName: string, extensions: string[], signer: string[]) => {
    const pair = { cert: join(folder, `${file}.pem`), key: join(folder, `${file}.key`) }
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', pair.key]
    const subject = ['-subj', `/CN=${commonName}`, '-days', DAYS, '-out', pair.cert]
    const added = extensions.flatMap((extension) => ['-addext', extension])
    const args = ['req', '-config', config, '-x509', ...key, ...subject, ...signer, ...added]
    await promisify(execFile)('openssl', args, { timeout: 20_000 })
    return pair
  }
  const title = `Tapeline test authority ${name}`
  const own = await request(name, title, ['basicConstraints=critical,CA:TRUE'], [])
  const signer = ['-CA', own.cert, '-CAkey', own.key]
  return {
    /** Clients trust it. */
    cert: own.cert,
    /** @param names as `IP:127.0.0.1,DNS:localhost` */
    sign(commonName: string, names: string): Promise<KeyPair> {
      const extensions = ['basicConstraints=critical,CA:FALSE', `subjectAltName=${names}`]
      return request(`${name}-${commonName}`, commonName, extensions, signer)
    },
  }
}
