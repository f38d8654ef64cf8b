/**
 * The shape of `src/api/schema/generated/facts.json`: everything the OpenAPI documents and the
 * protobuf field list say about the built-in kinds, with equal type nodes stored once.
 */
export interface Facts {
  /** Minor version the facts describe, `1.35`. */
  kubernetes: string;
  /** Distinct type nodes; types point at them by index. */
  nodes: object[];
  types: Record<string, TypeFacts>;
  /** Protobuf message → JSON field → [number, proto type]; `inline ` marks embedded messages. */
  messages: Record<string, Record<string, [number, string]>>;
  resources: ResourceFacts[];
}

export interface TypeFacts {
  fields: Record<string, number>;
  required?: string[];
  mapType?: string;
  unions?: { discriminator: string; fields: string[] }[];
  /** Group, version and kind of every API object that has this type. */
  kinds?: [string, string, string][];
  message?: string;
}

export interface ResourceFacts {
  group: string;
  version: string;
  kind: string;
  resource: string;
  namespaced: boolean;
  verbs: string[];
  type: string;
  subresources: { name: string; verbs: string[]; group: string; version: string; kind: string }[];
}
