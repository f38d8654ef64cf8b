import type { JsonSchema } from '../schema/checks.ts';
import { LINES_MEDIA } from './requests.ts';
import { pathParameters } from './router.ts';
import type { Answer, Route } from './router.ts';
import { TYPES } from './types.ts';
import type { TypeName } from './types.ts';

/** The API's description, OpenAPI 3.1, from the table of its routes. */
export function describeApi(routes: readonly Route[], version: string): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const route of routes) {
    (paths[route.path] ??= {})[route.method.toLowerCase()] = operation(route);
  }
  const schemas = Object.fromEntries(
    Object.entries(TYPES).map(([name, { schema }]) => [name, schema]),
  );
  return {
    openapi: '3.1.0',
    info: {
      title: 'hyperd',
      version,
      description: 'Pods in virtual machines of their own: their containers, images and streams.',
    },
    paths,
    components: { schemas },
  };
}

function operation(route: Route): object {
  const { summary, body, upgrade } = route;
  const media = body !== undefined && body in TYPES ? 'application/json' : body;
  return {
    operationId: operationId(route),
    summary,
    parameters: parameters(route),
    ...(body === undefined || media === undefined
      ? {}
      : { requestBody: { required: true, content: { [media]: contentOf(body) } } }),
    responses: {
      ...(upgrade ? upgraded(upgrade.protocol) : answers(route.answer)),
      default: {
        description: 'What went wrong',
        content: { 'application/json': { schema: reference('Status') } },
      },
    },
  };
}

/** `getPodsContainersLog`: stable as long as the path is. */
function operationId({ method, path }: Route): string {
  const parts = path.split('/').filter((part) => part !== '' && part !== 'v1');
  const names = parts.map((part) => part.replace(/^\{(.*)\}$/, 'by-$1').replace(/\W+/g, '-'));
  return [method.toLowerCase(), ...names]
    .join('-')
    .replace(/-+(\w)/g, (_, c: string) => c.toUpperCase());
}

function parameters({ path, query }: Route): object[] {
  const inPath = pathParameters(path).map((name) => {
    return { name, in: 'path', required: true, schema: { type: 'string' } };
  });
  const inQuery = Object.entries(query).map(([name, { schema, description, isRequired }]) => {
    return { name, in: 'query', required: isRequired, description, schema };
  });
  return [...inPath, ...inQuery];
}

function contentOf(body: string): object {
  return body in TYPES ? { schema: reference(body as TypeName) } : {};
}

function answers(answer: Answer | undefined): object {
  if (!answer) return { 204: { description: 'Done' } };
  if ('media' in answer) {
    return { 200: { description: 'A stream', content: { [answer.media]: {} } } };
  }
  const lines = (type: TypeName) => ({ [LINES_MEDIA]: { schema: reference(type) } });
  if ('lines' in answer) {
    return { 200: { description: 'One JSON object a line', content: lines(answer.lines) } };
  }
  const one = reference(answer.type);
  const schema = answer.isList ? { type: 'array', items: one } : one;
  const content = {
    'application/json': { schema },
    ...(answer.orLines ? lines(answer.orLines) : {}),
  };
  return { 200: { description: 'Done', content } };
}

function upgraded(protocol: string): object {
  return { 101: { description: `From here on both sides speak ${protocol}` } };
}

function reference(name: TypeName): JsonSchema {
  return { $ref: `#/components/schemas/${name}` };
}
