export interface ServiceAllocator {
  readonly size: number;
}
