/** Discovery, OpenAPI, bodies and selectable fields: the faces of the table that clients see. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseFieldSelector } from '../selectors.ts';
import { BODY_BYTES_MAX, decodeBody } from './decode.ts';
import {
  aggregatedDiscovery,
  apiGroup,
  apiGroupList,
  apiResourceList,
  groupVersions,
} from './discovery.ts';
import {
  checkFieldSelector,
  fieldValue,
  matchesFieldSelector,
  selectableFields,
} from './fields.ts';
import { openApiV3Document, openApiV3Index } from './openapi.ts';
import { openApiV2Documents } from './openapi-v2.ts';
import { apiVersionOf, builtinTable } from './table.ts';
import { WireReader } from './wire.ts';

const table = builtinTable();
const bytesOf = (text: string) => new TextEncoder().encode(text);

test('legacy and aggregated discovery tell the same', () => {
  const listed = groupVersions(table).flatMap(({ group, versions }) =>
    versions.flatMap((version) => {
      const list = apiResourceList(table, group, version) as { resources: { name: string }[] };
      return list.resources.map(({ name }) => `${apiVersionOf(group, version)} ${name}`);
    }),
  );
  const aggregated = (['api', 'apis'] as const).flatMap((root) => {
    const { items } = aggregatedDiscovery(table, root) as {
      items: {
        metadata: { name?: string };
        versions: {
          version: string;
          resources: { resource: string; subresources?: { subresource: string }[] }[];
        }[];
      }[];
    };
    return items.flatMap(({ metadata, versions }) =>
      versions.flatMap(({ version, resources }) =>
        resources.flatMap(({ resource, subresources = [] }) => [
          `${apiVersionOf(metadata.name ?? '', version)} ${resource}`,
          ...subresources.map(
            ({ subresource }) =>
              `${apiVersionOf(metadata.name ?? '', version)} ${resource}/${subresource}`,
          ),
        ]),
      ),
    );
  });
  assert.deepEqual(aggregated, listed);
  assert.equal(listed.filter((name) => name === 'v1 pods/eviction').length, 1);
});

test('the preferred version is the newest, and unknown groups have no document', () => {
  const { groups } = apiGroupList(table) as {
    groups: { name: string; preferredVersion: { version: string } }[];
  };
  assert.equal(groups.find(({ name }) => name === 'autoscaling')?.preferredVersion.version, 'v2');
  assert.equal(
    groups.some(({ name }) => name === ''),
    false,
  );
  assert.equal(apiGroup(table, 'nope'), undefined);
  assert.equal(apiResourceList(table, 'apps', 'v2'), undefined);
});

test('OpenAPI documents refer only to what they contain', () => {
  const { paths } = openApiV3Index(table) as {
    paths: Record<string, { serverRelativeURL: string }>;
  };
  assert.equal(Object.keys(paths).length, 22);
  for (const [path, { serverRelativeURL }] of Object.entries(paths)) {
    const groupVersion = path.replace(/^apis?\//, '');
    const document = openApiV3Document(table, groupVersion);
    assert.ok(document && serverRelativeURL.endsWith(`?hash=${document.hash}`), path);
    const text = Buffer.from(document.bytes).toString();
    const { components } = JSON.parse(text) as { components: { schemas: Record<string, object> } };
    for (const [, name] of text.matchAll(/"#\/components\/schemas\/([^"]+)"/g)) {
      assert.ok(components.schemas[name ?? ''], `${path} refers to ${name}`);
    }
  }
  assert.equal(openApiV3Document(table, 'nope/v1'), undefined);
});

test('OpenAPI v2 says the same as v3, in JSON and in protobuf', () => {
  const { json, protobuf } = openApiV2Documents(table);
  const document = JSON.parse(Buffer.from(json.bytes).toString());
  const { properties } = document.definitions['io.k8s.api.core.v1.PodSpec'];
  assert.equal(properties.containers['x-kubernetes-patch-merge-key'], 'name');
  assert.equal(properties.containers.items.$ref, '#/definitions/io.k8s.api.core.v1.Container');
  const missing = [...JSON.stringify(document).matchAll(/"#\/definitions\/([^"]+)"/g)]
    .map(([, name]) => name as string)
    .filter((name) => !Object.hasOwn(document.definitions, name));
  assert.deepEqual(missing, []);
  assert.doesNotMatch(JSON.stringify(properties), /allOf|oneOf|default/);
  const patch = document.paths['/api/v1/namespaces/{namespace}/pods/{name}'].patch;
  assert.ok(patch.parameters.some(({ name }: { name: string }) => name === 'dryRun'));
  const definitions = new WireReader(fieldOf(protobuf.bytes, 9));
  const names: string[] = [];
  while (!definitions.done) {
    definitions.tag();
    names.push(Buffer.from(fieldOf(definitions.bytes(), 1)).toString());
  }
  assert.deepEqual(names, Object.keys(document.definitions));
});

/** The first field of this number, which holds bytes. */
function fieldOf(message: Uint8Array, number: number): Uint8Array {
  const reader = new WireReader(message);
  while (!reader.done) {
    const bytes = reader.tag().field === number ? reader.bytes() : void reader.bytes();
    if (bytes) return bytes;
  }
  return assert.fail(`no field ${number}`);
}

test('OpenAPI carries what kubectl apply and explain read', () => {
  const document = JSON.parse(Buffer.from(openApiV3Document(table, 'apps/v1')!.bytes).toString());
  const { schemas } = document.components;
  const containers = schemas['io.k8s.api.core.v1.PodSpec'].properties.containers;
  assert.equal(containers['x-kubernetes-patch-merge-key'], 'name');
  assert.equal(containers['x-kubernetes-patch-strategy'], 'merge');
  const gvk = { group: 'apps', version: 'v1', kind: 'Deployment' };
  assert.deepEqual(schemas['io.k8s.api.apps.v1.Deployment']['x-kubernetes-group-version-kind'], [
    gvk,
  ]);
  const item = document.paths['/apis/apps/v1/namespaces/{namespace}/deployments/{name}'];
  assert.deepEqual(item.patch['x-kubernetes-group-version-kind'], gvk);
  assert.ok(
    item.patch.parameters.some(
      (parameter: { name: string }) => parameter.name === 'fieldValidation',
    ),
  );
});

test('decodeBody() tells media types, sizes and broken bodies apart', () => {
  const json = decodeBody(
    'application/json; charset=utf-8',
    bytesOf('{"kind":"Pod","a":1,"a":2}'),
    { table },
  );
  assert.deepEqual([json.kind, json.duplicates, json.encoding], ['Pod', ['a'], 'json']);
  const yaml = decodeBody('application/yaml', bytesOf('kind: Pod'), { table });
  assert.deepEqual([yaml.kind, yaml.encoding], ['Pod', 'yaml']);
  const defaults = { apiVersion: 'v1', kind: 'DeleteOptions' };
  const options = decodeBody(undefined, bytesOf('{"propagationPolicy":"Background"}'), {
    table,
    defaults,
  });
  assert.deepEqual([options.apiVersion, options.kind], ['v1', 'DeleteOptions']);
  const broken: [string, Uint8Array, number][] = [
    ['application/json', bytesOf('{'), 400],
    ['application/json', bytesOf('[]'), 400],
    ['application/json', bytesOf('{"kind":1}'), 400],
    ['application/json', Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x7d), 400],
    ['application/vnd.kubernetes.protobuf', bytesOf('{}'), 400],
    ['text/plain', bytesOf('{}'), 415],
    ['application/json', new Uint8Array(BODY_BYTES_MAX + 1), 413],
  ];
  for (const [type, bytes, code] of broken) {
    assert.throws(
      () => decodeBody(type, bytes, { table, expectedKind: 'Pod' }),
      { code },
      `${type} ${code}`,
    );
  }
});

test('only selectable fields select', () => {
  const pods = table.byKind('v1', 'Pod')!;
  const pod = { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'a' }, spec: { nodeName: 'n' } };
  assert.ok(selectableFields(pods).includes('spec.nodeName'));
  assert.equal(fieldValue(pods, pod, 'spec.hostNetwork'), 'false');
  const requirements = parseFieldSelector('spec.nodeName=n,status.phase!=Failed');
  assert.equal(matchesFieldSelector(pods, pod, requirements), true);
  checkFieldSelector(pods, requirements);
  assert.throws(() => checkFieldSelector(pods, parseFieldSelector('spec.foo=1')), { code: 400 });
});
