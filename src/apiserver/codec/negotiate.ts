import { StatusError } from '../../api/status.ts';

/** How the client wants objects to be shown and encoded. */
export interface Representation {
  shape: 'object' | 'table' | 'metadata';
  /** Version of meta.k8s.io in which tables and metadata are named: `v1` or `v1beta1`. */
  metaVersion: string;
  encoding: 'json' | 'yaml';
}

interface MediaRange {
  type: string;
  parameters: Record<string, string>;
  quality: number;
}

const SHAPES: Record<string, Representation['shape']> = {
  Table: 'table',
  PartialObjectMetadata: 'metadata',
  PartialObjectMetadataList: 'metadata',
};
const ENCODINGS: Record<string, Representation['encoding']> = {
  'application/json': 'json',
  'application/yaml': 'yaml',
  'application/*': 'json',
  '*/*': 'json',
};
const META_VERSIONS = new Set(['v1', 'v1beta1']);
const ACCEPT_RANGES_MAX = 32;

const PLAIN_JSON: Representation = { shape: 'object', metaVersion: 'v1', encoding: 'json' };

/** @throws StatusError 406 when nothing that the client takes can be produced */
export function negotiate(accept: string | undefined): Representation {
  if (!accept) return PLAIN_JSON;
  for (const range of parseAccept(accept)) {
    const encoding = ENCODINGS[range.type];
    if (!encoding || range.quality === 0) continue;
    const { as, v, g } = range.parameters;
    if (as === undefined) return { ...PLAIN_JSON, encoding };
    const shape = SHAPES[as];
    if (shape && g === 'meta.k8s.io' && META_VERSIONS.has(v ?? '')) {
      return { shape, metaVersion: v as string, encoding };
    }
  }
  throw notAcceptable();
}

function notAcceptable(): StatusError {
  const types = 'application/json, application/yaml';
  return new StatusError('NotAcceptable', `only the following media types are accepted: ${types}`);
}

/** Media ranges by falling quality; of equal ones the first named comes first. */
export function parseAccept(accept: string): MediaRange[] {
  const ranges = accept.split(',', ACCEPT_RANGES_MAX).map(parseMediaType);
  return ranges.sort((a, b) => b.quality - a.quality);
}

export function parseMediaType(text: string): MediaRange {
  const [type = '', ...rest] = text.split(';');
  const parameters: Record<string, string> = Object.create(null);
  for (const parameter of rest) {
    const at = parameter.indexOf('=');
    if (at < 0) continue;
    const value = parameter.slice(at + 1).trim();
    parameters[parameter.slice(0, at).trim().toLowerCase()] = value.replace(/^"(.*)"$/, '$1');
  }
  const quality = Number(parameters.q ?? 1);
  return {
    type: type.trim().toLowerCase(),
    parameters,
    quality: Number.isFinite(quality) ? quality : 0,
  };
}
