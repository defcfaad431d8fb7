import { murmur2 } from '@platformatic/kafka'

/**
 * Returns the partition that Java's default partitioner gives a key: `toPositive(murmur2(key)) %
 * partitions`. Set explicitly on every message, since the defaults of other clients differ.
 */
export function partitionOf(key: string, partitions: number): number {
  return (murmur2(Buffer.from(key, 'utf8')) & 0x7fffffff) % partitions
}
