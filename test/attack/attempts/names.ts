import { compare, differs, hides, isSame, refusedWith, shows } from '../support/attempt.ts';
import type { Attempt } from '../support/attempt.ts';
import type { Request } from '../support/client.ts';

const NAMESPACES = '/api/v1/namespaces';
const TENANTS = '/apis/hypernetes.io/v1/tenants';
const LABEL = 'hypernetes.io/tenant';
const operator = { by: ['operator' as const] };

const post = (path: string, body: object): Request => ({ method: 'POST', path, body });

/** Names that are another's, or could become somebody's. */
const claimed = [
  { name: 'acme' },
  { name: 'acme-planted' },
  { generateName: 'acme-' },
  { name: 'acme-web' },
  { name: 'default-2' },
  { name: 'kube-planted' },
  { name: 'globexx' },
  { name: 'planted' },
  { name: 'globe' },
  { generateName: 'globe' },
  { name: 'globex-planted', labels: { [LABEL]: 'acme' } },
  { name: 'globex-planted', labels: { [LABEL]: '' } },
  { name: 'globex-planted', labels: { [LABEL]: 'nobody' } },
  { name: 'acme-planted', labels: { [LABEL]: 'acme' } },
].map((metadata): Attempt => {
  const body = { metadata };
  return {
    name: `makes a namespace ${JSON.stringify(metadata)}`,
    by: ['bob'],
    attack: post(NAMESPACES, body),
    expect: refusedWith(403),
    control: {
      by: ['alice'],
      try: post(`${NAMESPACES}?dryRun=All`, { metadata: { name: 'acme-planted' } }),
    },
  };
});

const MERGE = 'application/merge-patch+json';
const JSON_PATCH = 'application/json-patch+json';
const APPLY = 'application/apply-patch+yaml';
const label = (value: string | null) => ({ metadata: { labels: { [LABEL]: value } } });
const apply = {
  ...{ apiVersion: 'v1', kind: 'Namespace' },
  metadata: { name: 'globex', labels: { [LABEL]: 'acme' } },
};
const pointer = `/metadata/labels/${LABEL.replace('/', '~1')}`;

const relabelled: Attempt[] = [
  ['by a merge', 'globex', label('acme'), MERGE],
  ['by taking it away', 'globex', label(null), MERGE],
  ['by a JSON patch', 'globex', [{ op: 'replace', path: pointer, value: 'acme' }], JSON_PATCH],
  ['by a JSON patch that removes', 'globex', [{ op: 'remove', path: pointer }], JSON_PATCH],
  ['by its status', 'globex/status', label('acme'), MERGE],
  ['by applying', 'globex?fieldManager=x&force=true', apply, APPLY],
  ['of the victim', 'acme', label('globex'), MERGE],
].map(([how, target, body, type]): Attempt => ({
  name: `changes whose a namespace is ${how as string}`,
  by: ['bob'],
  attack: {
    method: 'PATCH',
    path: `${NAMESPACES}/${target as string}`,
    body,
    type: type as string,
  },
  expect: refusedWith(403, 415, 422),
  control: {
    by: ['alice'],
    try: {
      ...{ method: 'PATCH', path: `${NAMESPACES}/acme?dryRun=All` },
      body: { metadata: { labels: { x: 'y' } } },
    },
  },
}));

const onNamespaces: Attempt[] = [
  ['GET', `${NAMESPACES}/acme`],
  ['PATCH', `${NAMESPACES}/acme`, { metadata: { finalizers: [] } }],
  ['DELETE', `${NAMESPACES}/acme`],
  ['DELETE', `${NAMESPACES}/kube-system`],
  ['PUT', `${NAMESPACES}/acme/finalize`, { metadata: { name: 'acme' }, spec: { finalizers: [] } }],
  ['PUT', `${NAMESPACES}/globex/finalize`, { metadata: { name: 'globex' }, spec: {} }],
  ['GET', `${NAMESPACES}?fieldSelector=metadata.name%3Dacme`],
  ['GET', `${NAMESPACES}?watch=true&fieldSelector=metadata.name%3Dacme`],
  ['DELETE', NAMESPACES],
].map(([method, path, body]): Attempt => ({
  name: `${method as string} ${path as string}`,
  by: ['bob'],
  attack: { method: method as string, path: path as string, ...(body ? { body } : {}) },
  expect: refusedWith(403, 405),
  control: { by: ['alice'], try: { path: `${NAMESPACES}/acme` }, expect: shows('"acme"') },
}));

const listed: Attempt[] = [
  `${NAMESPACES}`,
  `${NAMESPACES}?labelSelector=${encodeURIComponent(`${LABEL}=acme`)}`,
  `${NAMESPACES}?labelSelector=${encodeURIComponent(`${LABEL} notin (globex)`)}`,
  `${NAMESPACES}?fieldSelector=metadata.name%21%3Dglobex`,
  `${NAMESPACES}?limit=1`,
  TENANTS,
  `${TENANTS}?fieldSelector=metadata.name%21%3Dglobex`,
].map((path): Attempt => ({
  name: `lists ${path}`,
  by: ['bob'],
  attack: { path },
  expect: hides('acme"', 'kube-system'),
  control: { by: ['alice'], try: { path: NAMESPACES }, expect: shows('"acme"') },
}));

const spec = { metadata: { name: 'globex-sub' }, spec: {} };
const onTenants: Attempt[] = [
  ['reads the victim', { path: `${TENANTS}/acme` }],
  ['deletes the victim', { method: 'DELETE', path: `${TENANTS}/acme` }],
  ['suspends the victim', patch('acme', { spec: { suspended: true } })],
  [
    'joins the victim',
    patch('acme', { spec: { members: [{ kind: 'User', name: 'bob', role: 'admin' }] } }),
  ],
  ['takes the quota off itself', patch('globex', { spec: { quota: null } })],
  ['gives itself more quota', patch('globex', { spec: { quota: { hard: { pods: '9999' } } } })],
  ['takes the victims project', patch('globex', { spec: { projectID: 'x' } })],
  ['gives itself a parent', patch('globex', { spec: { parent: 'acme' } })],
  ['gives itself classes', patch('globex', { spec: { allowed: { runtimeClasses: ['x'] } } })],
  ['gives itself kernels', patch('globex', { spec: { allowed: { kernels: ['x'] } } })],
  ['says that it has the victims project', patch('globex/status', { status: { projectID: 'x' } })],
  ['deletes itself', { method: 'DELETE', path: `${TENANTS}/globex` }],
  ['makes a tenant', post(TENANTS, { metadata: { name: 'planted' }, spec: {} })],
  [
    'makes a tenant below the victim',
    post(TENANTS, { ...spec, metadata: { name: 'acme-x' }, spec: { parent: 'acme' } }),
  ],
  [
    'makes a tenant of its own named as the victims',
    post(TENANTS, { metadata: { name: 'acme-x' }, spec: { parent: 'globex' } }),
  ],
  ['makes a sub-tenant of a project', post(TENANTS, { ...spec, spec: { projectID: 'x' } })],
  [
    'makes a sub-tenant over its namespace',
    post(TENANTS, { metadata: { name: 'globex-lab' }, spec: {} }),
  ],
  ['reads the victims usage', { path: `${TENANTS}/acme/usage` }],
  ['reads the victims audit', { path: `${TENANTS}/acme/audit` }],
].map(([name, attack]): Attempt => ({
  name: name as string,
  by: ['bob'],
  attack: attack as Request,
  expect: refusedWith(403, 404, 422),
  control: { by: ['alice'], try: { path: `${TENANTS}/acme` }, expect: shows('"acme"') },
}));

function patch(name: string, body: object): Request {
  return { method: 'PATCH', path: `${TENANTS}/${name}`, body };
}

/** The same words for what is another's and for what is nobody's. */
const words: [string, (name: string) => Request][] = [
  ['reading a namespace', (name) => ({ path: `${NAMESPACES}/${name}` })],
  ['making a namespace', (name) => post(NAMESPACES, { metadata: { name } })],
  ['deleting a namespace', (name) => ({ method: 'DELETE', path: `${NAMESPACES}/${name}` })],
  ['listing pods', (name) => ({ path: `${NAMESPACES}/${name}/pods` })],
  [
    'making a pod',
    (name) => post(`${NAMESPACES}/${name}/pods`, { metadata: { name: 'x' }, spec: {} }),
  ],
  ['running in a pod', (name) => post(`${NAMESPACES}/${name}/pods/target/exec?command=x`, {})],
  ['reading a log', (name) => ({ path: `${NAMESPACES}/${name}/pods/target/log` })],
  ['reading a tenant', (name) => ({ path: `${TENANTS}/${name}` })],
  ['making a tenant', (name) => post(TENANTS, { metadata: { name } })],
  [
    'making a tenant below',
    (name) => post(TENANTS, { metadata: { name: 'globex-y' }, spec: { parent: name } }),
  ],
  ['asking for a token', (name) => post(`${NAMESPACES}/${name}/serviceaccounts/default/token`, {})],
  [
    'acting as an account',
    (name) => ({
      path: '/api/v1/namespaces/globex/pods',
      headers: { 'impersonate-user': `system:serviceaccount:${name}:default` },
    }),
  ],
  ['an unknown kind', (name) => ({ path: `${NAMESPACES}/${name}/widgets` })],
  ['a watch', (name) => ({ path: `${NAMESPACES}/${name}/pods?watch=true` })],
  [
    'a bad patch',
    (name) => ({ method: 'PATCH', path: `${NAMESPACES}/${name}/pods/x`, body: '{', type: MERGE }),
  ],
];

const worded = words.map(([name, request]): Attempt => ({
  name: `tells by ${name} what is another's from what is not there`,
  attack: compare('acme', 'nobody', request),
  expect: isSame,
  control: {
    ...operator,
    try: compare('acme', 'nobody', (of) => ({ path: `${NAMESPACES}/${of}` })),
    expect: differs,
  },
}));

export const NAME_ATTEMPTS: Attempt[] = [
  ...claimed,
  ...relabelled,
  ...onNamespaces,
  ...listed,
  ...onTenants,
  ...worded,
];
