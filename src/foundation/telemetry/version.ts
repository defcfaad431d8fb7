import { readFileSync } from 'node:fs'

const MANIFEST: unknown = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'))

/** Tapeline's version, from its package. */
export const VERSION =
  typeof MANIFEST === 'object' && MANIFEST !== null && 'version' in MANIFEST
    ? String(MANIFEST.version)
    : 'unknown'
