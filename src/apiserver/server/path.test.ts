import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseRequestInfo } from './path.ts';

/** method, path with query → verb group/version namespace resource/subresource name rest */
const CASES: [string, string, string][] = [
  ['GET', '/api/v1/pods', 'list /v1 - pods - -'],
  ['GET', '/api/v1/pods?watch=true', 'watch /v1 - pods - -'],
  ['GET', '/api/v1/pods?watch=0', 'list /v1 - pods - -'],
  ['GET', '/api/v1/pods?watch', 'watch /v1 - pods - -'],
  ['GET', '/api/v1/watch/namespaces/a/pods', 'watch /v1 a pods - -'],
  ['GET', '/api/v1/namespaces', 'list /v1 - namespaces - -'],
  ['GET', '/api/v1/namespaces/a', 'get /v1 a namespaces a -'],
  ['PUT', '/api/v1/namespaces/a/status', 'update /v1 a namespaces/status a -'],
  ['PUT', '/api/v1/namespaces/a/finalize', 'update /v1 a namespaces/finalize a -'],
  ['GET', '/api/v1/namespaces/a/pods/b', 'get /v1 a pods b -'],
  ['GET', '/api/v1/namespaces/a/pods/b/log', 'get /v1 a pods/log b -'],
  ['POST', '/api/v1/namespaces/a/pods/b/exec', 'create /v1 a pods/exec b -'],
  ['POST', '/api/v1/namespaces/a/pods', 'create /v1 a pods - -'],
  ['DELETE', '/api/v1/namespaces/a/pods', 'deletecollection /v1 a pods - -'],
  ['DELETE', '/api/v1/namespaces/a/pods/b', 'delete /v1 a pods b -'],
  [
    'PATCH',
    '/apis/apps/v1/namespaces/a/deployments/b/scale',
    'patch apps/v1 a deployments/scale b -',
  ],
  ['GET', '/api/v1/nodes/n/proxy/logs/a%2Fb/c', 'get /v1 - nodes/proxy n /logs/a%2Fb/c'],
  ['GET', '/api/v1/pods?fieldSelector=metadata.name%3Dx', 'list /v1 - pods x -'],
  ['GET', '/api/v1/pods?watch=1&fieldSelector=metadata.name==x,a=b', 'watch /v1 - pods x -'],
  ['GET', '/api/v1/pods?fieldSelector=metadata.name!%3Dx', 'list /v1 - pods - -'],
  ['GET', '/api/v1/namespaces/a/pods/c%2Fd', 'get /v1 a pods c/d -'],
];

test('parseRequestInfo() reads the grammar of resource paths', () => {
  for (const [method, target, expected] of CASES) {
    const [path, query] = target.split('?');
    const info = parseRequestInfo(method, path as string, new URLSearchParams(query));
    const resource = info.subresource ? `${info.resource}/${info.subresource}` : info.resource;
    const found = [
      info.verb,
      `${info.group}/${info.version}`,
      info.namespace || '-',
      resource,
      info.name || '-',
      info.rest || '-',
    ].join(' ');
    assert.equal(found, expected, `${method} ${target}`);
    assert.equal(info.isResourceRequest, true);
  }
});

test('parseRequestInfo() leaves other paths alone', () => {
  for (const path of ['/', '/healthz', '/api', '/api/v1', '/apis', '/apis/apps', '/apis/apps/v1']) {
    const info = parseRequestInfo('GET', path, new URLSearchParams());
    assert.equal(info.isResourceRequest, false, path);
    assert.equal(info.verb, 'get');
  }
});

test('parseRequestInfo() refuses broken escapes', () => {
  assert.throws(
    () => parseRequestInfo('GET', '/api/v1/namespaces/%zz/pods', new URLSearchParams()),
    /not escaped correctly/,
  );
});
