/** The fault of a server's certificate. */
export type CertificateFault = 'untrusted' | 'outdated' | 'other host'

/** By the error code of OpenSSL or Node. */
const FAULTS: Readonly<Record<string, CertificateFault>> = {
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'untrusted',
  UNABLE_TO_GET_ISSUER_CERT: 'untrusted',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'untrusted',
  SELF_SIGNED_CERT_IN_CHAIN: 'untrusted',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'untrusted',
  CERT_UNTRUSTED: 'untrusted',
  CERT_SIGNATURE_FAILURE: 'untrusted',
  INVALID_CA: 'untrusted',
  CERT_HAS_EXPIRED: 'outdated',
  CERT_NOT_YET_VALID: 'outdated',
  ERR_TLS_CERT_ALTNAME_INVALID: 'other host',
}

export function certificateFault(code: unknown): CertificateFault | null {
  return typeof code === 'string' ? (FAULTS[code] ?? null) : null
}
