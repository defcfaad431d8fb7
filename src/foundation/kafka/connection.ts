/** How to reach the brokers; the same for every client. */
export interface KafkaConnection {
  readonly brokers: readonly string[]
  /** PEM texts; null for plain text connections. */
  readonly tls: { readonly ca?: string; readonly cert?: string; readonly key?: string } | null
  readonly sasl: {
    readonly mechanism: 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512'
    readonly username: string
    readonly password: string
  } | null
}

/** The same with another bootstrap broker first for each number, since one may hang. */
export function startingAt(connection: KafkaConnection, number: number): KafkaConnection {
  const { brokers } = connection
  const first = number % Math.max(1, brokers.length)
  return { ...connection, brokers: [...brokers.slice(first), ...brokers.slice(0, first)] }
}
