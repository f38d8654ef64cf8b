import { hides, refusedWith, shows } from '../support/attempt.ts';
import type { Attempt } from '../support/attempt.ts';
import type { Request } from '../support/client.ts';

/** The second node has the attacker's pod alone; the victim's is on the first. */
const STOLEN = ['node2' as const];
const OWNER = ['node1' as const];
const OPERATOR = ['operator' as const];
const ACME = '/api/v1/namespaces/acme';

const expect = refusedWith(403);

const attempt = (
  name: string,
  attack: Request,
  control: Attempt['control'] = { by: OWNER },
): Attempt => ({ name: `a stolen node ${name}`, by: STOLEN, attack, expect, control });

const post = (path: string, body: object): Request => ({ method: 'POST', path, body });
const patch = (path: string, body: object): Request => ({ method: 'PATCH', path, body });
const dry = ({ path, ...rest }: Request): Request => ({ ...rest, path: `${path}?dryRun=All` });
const first = (text: string) => text.includes('\n');

const selected = 'fieldSelector=metadata.name%3Dtarget';

const reads: Attempt[] = [
  attempt(
    'reads a Secret',
    { path: `${ACME}/secrets/target` },
    { by: OWNER, expect: shows('canary-') },
  ),
  attempt(
    'lists a Secret',
    { path: `${ACME}/secrets?${selected}` },
    { by: OWNER, expect: shows('canary-') },
  ),
  attempt('watches a Secret', { path: `${ACME}/secrets?watch=true&${selected}`, until: first }),
  attempt('reads a ConfigMap', { path: `${ACME}/configmaps/target` }),
  attempt('watches a ConfigMap', {
    path: `${ACME}/configmaps?watch=true&${selected}`,
    until: first,
  }),
  attempt('reads a service account', { path: `${ACME}/serviceaccounts/default` }),
  attempt('reads a pod', { path: `${ACME}/pods/placed` }),
  attempt('lists Services of a namespace', { path: `${ACME}/services` }),
  attempt('reads a Service', { path: `${ACME}/services/target` }),
  attempt('watches Services of a namespace', { path: `${ACME}/services?watch=true`, until: first }),
  attempt('reads Endpoints', { path: `${ACME}/endpoints/target` }),
  attempt('lists EndpointSlices', {
    path: '/apis/discovery.k8s.io/v1/namespaces/acme/endpointslices',
  }),
  ...[
    '/api/v1/secrets',
    '/api/v1/configmaps',
    '/api/v1/services',
    '/api/v1/services?watch=true&timeoutSeconds=1',
    '/apis/discovery.k8s.io/v1/endpointslices',
    '/api/v1/endpoints',
    '/api/v1/pods',
    '/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1',
    '/api/v1/pods?fieldSelector=spec.nodeName%21%3Dnode-2',
    '/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1%2Cspec.nodeName%3Dnode-1',
    '/api/v1/pods?labelSelector=spec.nodeName%3Dnode-2',
    '/api/v1/namespaces',
    '/api/v1/nodes',
    '/api/v1/nodes/node-1',
    '/api/v1/events',
    '/api/v1/serviceaccounts',
    '/api/v1/persistentvolumes',
    '/apis/hypernetes.io/v1/tenants',
    '/apis/hypernetes.io/v1/tenants/acme',
    '/apis/apps/v1/deployments',
    '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings',
    '/api/v1/namespaces/kube-system/secrets',
    '/metrics',
  ].map((path) => attempt(`reads ${path}`, { path }, { by: OPERATOR })),
  {
    ...attempt('finds pods of another node among its own', {
      path: '/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-2',
    }),
    expect: hides('"namespace":"acme'),
    control: {
      by: OWNER,
      try: { path: '/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1' },
      expect: shows('"namespace":"acme'),
    },
  },
];

/** References that are paths: the node has the pod, and the reference is to nothing but itself. */
const LED_ASTRAY = ['../acme/target', '../../acme/secrets/target', 'acme/target', '..'];
const astray = LED_ASTRAY.map((name, index): Attempt => ({
  name: `a stolen node reads the Secret ${name} that its pod names`,
  by: STOLEN,
  attack: async (world, who) => {
    const volumes = [{ name: 'v', secret: { secretName: name } }];
    const spec = { containers: [{ name: 'c', image: 'x' }], volumes, nodeName: 'node-2' };
    const body = { metadata: { name: `astray-${index}` }, spec };
    await world.want('operator', post('/api/v1/namespaces/globex/pods', body));
    const base = '/api/v1/namespaces/globex/secrets';
    const plain = await world.send(who, { path: `${base}/${name}` });
    const encoded = await world.send(who, { path: `${base}/${encodeURIComponent(name)}` });
    return encoded.status === 200 ? encoded : plain;
  },
  expect: refusedWith(400, 403, 404, 405),
  control: { by: OWNER, try: { path: `${ACME}/secrets/target` }, expect: shows('canary-') },
}));

const status = { status: { conditions: [] } };
const LEASES = '/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases';
const bound = (pod: string) => ({ spec: { boundObjectRef: { kind: 'Pod', name: pod, uid: 'x' } } });

const writes: Attempt[] = [
  attempt('writes the status of a pod', patch(`${ACME}/pods/placed/status`, status), {
    by: OWNER,
    try: dry(patch(`${ACME}/pods/placed/status`, status)),
  }),
  attempt('gives a pod other resources', patch(`${ACME}/pods/placed/resize`, {}), {
    // Not even the pod's own node may.
    by: ['operator'],
    try: dry(patch(`${ACME}/pods/placed/resize`, {})),
  }),
  attempt(
    'deletes a pod',
    { method: 'DELETE', path: `${ACME}/pods/placed` },
    {
      by: OWNER,
      try: dry({ method: 'DELETE', path: `${ACME}/pods/placed` }),
    },
  ),
  attempt('evicts a pod', post(`${ACME}/pods/placed/eviction`, { metadata: { name: 'placed' } }), {
    by: OWNER,
    try: post(`${ACME}/pods/placed/eviction`, {
      metadata: { name: 'placed' },
      deleteOptions: { dryRun: ['All'] },
    }),
  }),
  ...['', '/status'].map((what) =>
    attempt(
      `writes another node${what}`,
      patch(`/api/v1/nodes/node-1${what}`, { metadata: { annotations: { a: 'b' } } }),
      {
        by: OWNER,
        try: dry(patch(`/api/v1/nodes/node-1${what}`, { metadata: { annotations: { a: 'b' } } })),
      },
    ),
  ),
  ...[
    ['deletes another node', { method: 'DELETE', path: '/api/v1/nodes/node-1' }],
    ['makes a node', post('/api/v1/nodes', { metadata: { name: 'node-9' } })],
    [
      'fences itself off',
      patch('/api/v1/nodes/node-2', {
        metadata: { labels: { 'node-restriction.kubernetes.io/x': 'y' } },
      }),
    ],
    [
      'takes a role',
      patch('/api/v1/nodes/node-2', {
        metadata: { labels: { 'node-role.kubernetes.io/control-plane': '' } },
      }),
    ],
    [
      'changes its taints',
      patch('/api/v1/nodes/node-2', { spec: { taints: [], unschedulable: true } }),
    ],
    [
      'makes a pod',
      post(`${ACME}/pods`, {
        metadata: { name: 'p' },
        spec: { nodeName: 'node-2', containers: [{ name: 'c', image: 'x' }] },
      }),
    ],
    [
      'makes a pod where it has one',
      post('/api/v1/namespaces/globex/pods', {
        metadata: { name: 'p' },
        spec: { nodeName: 'node-2', containers: [{ name: 'c', image: 'x' }] },
      }),
    ],
    [
      'binds a pod to itself',
      post(`${ACME}/pods/target/binding`, { target: { kind: 'Node', name: 'node-2' } }),
    ],
    [
      'writes a Secret of its own pod',
      patch('/api/v1/namespaces/globex/secrets/marker', { data: {} }),
    ],
    ['makes a Secret', post(`${ACME}/secrets`, { metadata: { name: 'p' } })],
    ['takes the lease of another node', post(LEASES, { metadata: { name: 'node-1' } })],
    [
      'writes an event in another namespace',
      post(`${ACME}/events`, {
        metadata: { name: 'p' },
        involvedObject: { kind: 'Pod', namespace: 'acme', name: 'placed' },
      }),
    ],
    [
      'has a token reviewed',
      post('/apis/authentication.k8s.io/v1/tokenreviews', { spec: { token: 'x' } }),
    ],
    [
      'asks what others may',
      post('/apis/authorization.k8s.io/v1/subjectaccessreviews', {
        spec: { user: 'x', resourceAttributes: {} },
      }),
    ],
    [
      'gives itself rights',
      post('/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', { metadata: { name: 'p' } }),
    ],
    [
      'acts as the operator',
      {
        path: `${ACME}/secrets/target`,
        headers: { 'impersonate-user': 'x', 'impersonate-group': 'system:masters' },
      },
    ],
    [
      'acts as another node',
      {
        path: `${ACME}/secrets/target`,
        headers: { 'impersonate-user': 'system:node:node-1', 'impersonate-group': 'system:nodes' },
      },
    ],
    ['runs in a pod', { path: `${ACME}/pods/placed/exec?command=id` }],
    ['runs in its own pod', { path: '/api/v1/namespaces/globex/pods/placed/exec?command=id' }],
    ['reaches another node by its proxy', { path: '/api/v1/nodes/node-1/proxy/pods' }],
    [
      'approves a certificate',
      patch('/apis/certificates.k8s.io/v1/certificatesigningrequests/x/approval', {}),
    ],
  ].map(([name, request]) =>
    attempt(name as string, request as Request, {
      by: OPERATOR,
      try: { path: '/api/v1/nodes/node-1' },
    }),
  ),
];

const ownToken = (world: { uids: Record<string, string> }) => ({
  spec: { boundObjectRef: { kind: 'Pod', name: 'placed', uid: world.uids['globex/placed'] } },
});
const ACCOUNT = '/api/v1/namespaces/globex/serviceaccounts/default/token';

const tokens: Attempt[] = [
  ['for an account of the victim', `${ACME}/serviceaccounts/default/token`, bound('placed')],
  ['for another account', '/api/v1/namespaces/globex/serviceaccounts/robot/token', bound('placed')],
  ['for the system', '/api/v1/namespaces/kube-system/serviceaccounts/default/token', bound('x')],
  ['that is bound to nothing', ACCOUNT, { spec: {} }],
  [
    'that is bound to a Secret',
    ACCOUNT,
    { spec: { boundObjectRef: { kind: 'Secret', name: 'marker' } } },
  ],
  ['that is bound to a pod elsewhere', ACCOUNT, bound('marker')],
].map(([name, path, body]) =>
  attempt(`mints a token ${name as string}`, post(path as string, body as object), {
    by: STOLEN,
    try: (world) => post(ACCOUNT, ownToken(world)),
  }),
);

export const NODE_ATTEMPTS: Attempt[] = [...reads, ...astray, ...writes, ...tokens];
