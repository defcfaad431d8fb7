import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

/** Paths of PEM files: a certificate and its private key, in PKCS #8 without a password. */
export interface KeyPair {
  readonly cert: string
  readonly key: string
}

/** An authority that signs certificates for a test; clients trust its certificate. */
export interface TestAuthority {
  readonly cert: string
  /** @param names as `IP:127.0.0.1,DNS:localhost` */
  sign(commonName: string, names: string): Promise<KeyPair>
}

const DAYS = '2'
/** Ignores the machine's OpenSSL configuration. */
const CONFIG = '[req]\ndistinguished_name = dn\n[dn]\n'

/** Creates an authority with `openssl` 3 from the PATH; its files are in `folder`, under `name`. */
export async function createAuthority(folder: string, name: string): Promise<TestAuthority> {
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
  const own = await request(
    name,
    `Tapeline test authority ${name}`,
    ['basicConstraints=critical,CA:TRUE'],
    [],
  )
  return {
    cert: own.cert,
    sign: (commonName, names) =>
      request(
        `${name}-${commonName}`,
        commonName,
        ['basicConstraints=critical,CA:FALSE', `subjectAltName=${names}`],
        ['-CA', own.cert, '-CAkey', own.key],
      ),
  }
}
