/** Settings of the connection to the brokers; the same for every client. */
export interface KafkaConnection {
  readonly brokers: readonly string[]
  /** PEM texts; null for plaintext connections. */
  readonly tls: { readonly ca?: string; readonly cert?: string; readonly key?: string } | null
  readonly sasl: {
    readonly mechanism: 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512'
    readonly username: string
    readonly password: string
  } | null
}
