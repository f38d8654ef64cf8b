import type { StatusCause } from '../status.ts';

/**
 * The schema table: every built-in kind is a row, every type a node. Validation, defaulting,
 * pruning, strategic merge, protobuf, discovery, OpenAPI and printed tables are all driven by it;
 * nothing else in the system knows the fields of a kind it merely stores. `generated/` is made
 * by `tools/schema/generate.ts` and holds facts only.
 */
export interface ResourceRow {
  /** Empty for the core group. */
  group: string;
  version: string;
  kind: string;
  /** Plural, lower case: `pods`. */
  resource: string;
  singular: string;
  shortNames: string[];
  categories: string[];
  namespaced: boolean;
  verbs: string[];
  /** Name of the object's type in the type table: `io.k8s.api.core.v1.Pod`. */
  type: string;
  subresources: SubresourceRow[];
  columns: PrinterColumn[];
  /** apiVersion in which the kind is stored (`autoscaling/v2`); other versions are converted. */
  storageVersion: string;
}

export interface SubresourceRow {
  /** `status`, `scale`, `log`, … */
  name: string;
  verbs: string[];
  group: string;
  version: string;
  kind: string;
}

export interface PrinterColumn {
  name: string;
  type: 'string' | 'integer' | 'number' | 'boolean' | 'date';
  format: string;
  description: string;
  /** 0 is always shown, 1 with `-o wide`. */
  priority: number;
}

export type ScalarType = 'string' | 'integer' | 'number' | 'boolean';

/** A field's or element's type. Exactly one of the members that name a type is set. */
export interface TypeNode {
  scalar?: ScalarType;
  /** `int32`, `int64`, `date-time`, `byte`, `int-or-string`, `quantity`, `micro-time`, … */
  format?: string;
  /** Name of an object type. */
  ref?: string;
  items?: TypeNode;
  /** Map from string to this. */
  values?: TypeNode;
  /** Any JSON: RawExtension, JSON, FieldsV1. */
  any?: true;
  enum?: string[];
  default?: unknown;
  /** list-type: `atomic`, `set`, `map`; map-type: `atomic`, `granular`. */
  listType?: 'atomic' | 'set' | 'map';
  listMapKeys?: string[];
  mapType?: 'atomic' | 'granular';
  patchStrategy?: string;
  patchMergeKey?: string;
}

export interface ObjectType {
  name: string;
  fields: Record<string, TypeNode>;
  required: string[];
  mapType?: 'atomic' | 'granular';
  unions?: { discriminator: string; fields: string[] }[];
  /** Name of the protobuf message, for `SchemaTable.message`. */
  message?: string;
  /** Group, version and kind of the API objects that have this type. */
  kinds?: [string, string, string][];
}

/** The table of one server: built-in rows now, rows of custom resources added at run time. */
export interface SchemaTable {
  rows(): ResourceRow[];
  /** By URL: `apps`, `v1`, `deployments`. */
  byResource(group: string, version: string, resource: string): ResourceRow | undefined;
  /** By object: `apps/v1`, `Deployment`. */
  byKind(apiVersion: string, kind: string): ResourceRow | undefined;
  type(name: string): ObjectType | undefined;
  /** Names of all types, sorted. */
  typeNames(): string[];
  /** The type of any API object, also of those without a resource: lists, options, `Scale`. */
  typeOfKind(apiVersion: string, kind: string): string | undefined;
  /** Fields of a protobuf message; embedded messages (`volumeSource`) have messages of their own. */
  message(name: string): ProtobufMessage | undefined;
}

/** JSON field → [number, proto type]: `string`, `[]int32`, `map<string>bytes`, `inline k8s.io…`. */
export type ProtobufMessage = Record<string, [number, string]>;

/** What a pass over an object found. `unknown` and `duplicate` become warnings or errors. */
export interface StructuralFindings {
  /** Dotted paths as Kubernetes prints them: `spec.containers[0].foo`. */
  unknown: string[];
  /** `FieldValueTypeInvalid` is a malformed body (400); `FieldValueRequired` an invalid one (422). */
  errors: StatusCause[];
}
