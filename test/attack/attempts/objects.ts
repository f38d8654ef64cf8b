import { compare, either, hides, isSame, refused, refusedWith, shows } from '../support/attempt.ts';
import type { Attempt } from '../support/attempt.ts';
import type { Request } from '../support/client.ts';

const operator = { by: ['operator' as const] };
const NS = '/api/v1/namespaces/globex';
const PODS = `${NS}/pods`;
const SERVICES = `${NS}/services`;

const post = (path: string, body: object): Request => ({ method: 'POST', path, body });
const dry = (path: string, body: object): Request => post(`${path}?dryRun=All`, body);

const CONTAINER = { name: 'main', image: 'example.org/app:1' };
interface PlantedPod {
  metadata: { name: string; annotations?: Record<string, string> };
  spec: object;
}

const pod = (spec: object): PlantedPod => ({
  metadata: { name: 'planted' },
  spec: { containers: [CONTAINER], ...spec },
});
const volume = (source: object) =>
  pod({
    containers: [{ ...CONTAINER, volumeMounts: [{ name: 'v', mountPath: '/v' }] }],
    volumes: [{ name: 'v', ...source }],
  });

/** A pod that names what is not in its namespace; the same with a name of its own is accepted. */
const named: Record<string, PlantedPod> = {
  'a node': pod({ nodeName: 'node-1' }),
  'a node that is not there': pod({ nodeName: 'node-9' }),
  'a service account elsewhere': pod({ serviceAccountName: 'acme/default' }),
  'a service account by its whole name': pod({
    serviceAccountName: 'system:serviceaccount:acme:default',
  }),
  'a path in a volume that leads out of it': pod({
    containers: [
      { ...CONTAINER, volumeMounts: [{ name: 'v', mountPath: '/v', subPath: '../../acme' }] },
    ],
    volumes: [{ name: 'v', emptyDir: {} }],
  }),
  'a file of a Secret that leads out of its volume': volume({
    secret: { secretName: 'marker', items: [{ key: 'password', path: '../../escape' }] },
  }),
  'a token that leads out of its volume': volume({
    projected: { sources: [{ serviceAccountToken: { path: '../../token' } }] },
  }),
  'a host path that leads out': volume({ hostPath: { path: '/var/../../etc' } }),
  'a priority of the system': pod({ priorityClassName: 'system-node-critical' }),
  'a runtime that is not there': pod({ runtimeClassName: 'nobodys' }),
  "somebody else's kernel": {
    ...pod({}),
    metadata: { name: 'planted', annotations: { 'hypernetes.io/kernel': 'theirs' } },
  },
};

const pods = Object.entries(named).map(([name, body], index): Attempt => ({
  name: `makes a pod that names ${name}`,
  attack: post(PODS, { ...body, metadata: { ...body.metadata, name: `planted-${index}` } }),
  expect: refusedWith(400, 403, 404, 422),
  control: { by: ['bob'], try: dry(PODS, pod({})) },
}));

const onPods: Attempt[] = [
  {
    name: 'binds its pod to a node',
    attack: post(`${PODS}/marker/binding`, { target: { kind: 'Node', name: 'node-1' } }),
    control: { ...operator, try: dry(PODS, pod({ nodeName: 'node-1' })) },
  },
  {
    name: 'says where its pod runs',
    attack: {
      method: 'PATCH',
      path: `${PODS}/marker/status`,
      body: { status: { podIP: '127.0.0.1' } },
    },
    control: {
      ...operator,
      try: {
        ...{ method: 'PATCH', path: `${PODS}/marker/status?dryRun=All` },
        body: { status: { podIP: '127.0.0.1' } },
      },
    },
  },
  {
    name: 'moves its pod to another node',
    attack: { method: 'PATCH', path: `${PODS}/marker`, body: { spec: { nodeName: 'node-1' } } },
    expect: refusedWith(403, 422),
    control: { by: ['bob'], try: { method: 'PATCH', path: `${PODS}/marker?dryRun=All`, body: {} } },
  },
  ...[
    'exec?command=id',
    'attach',
    'portforward?ports=80',
    'log',
    'proxy/',
    'ephemeralcontainers',
  ].map((what): Attempt => ({
    name: `reaches into the victims pod by ${what}`,
    attack: {
      ...{ path: `/api/v1/namespaces/acme/pods/placed/${what}`, via: 'websocket' },
      headers: { 'sec-websocket-protocol': 'v5.channel.k8s.io' },
    },
    expect: refusedWith(403),
    control: { try: { path: '/api/v1/namespaces/acme/pods/placed' }, expect: shows('placed') },
  })),
  ...['exec?command=id', 'attach', 'log'].map((what): Attempt => ({
    name: `reaches the victims pod by its uid with ${what}`,
    attack: (world) => ({ path: `${PODS}/${world.uids['acme/placed']}/${what}` }),
    expect: refusedWith(400, 404),
    control: { try: { path: '/api/v1/namespaces/acme/pods/placed' }, expect: shows('placed') },
  })),
  {
    name: 'gives the victims pod other resources',
    attack: { method: 'PATCH', path: '/api/v1/namespaces/acme/pods/placed/resize', body: {} },
    expect: refusedWith(403),
    control: {
      try: {
        ...{ method: 'PATCH', path: '/api/v1/namespaces/acme/pods/placed/resize?dryRun=All' },
        body: {},
      },
    },
  },
  {
    name: 'evicts the victims pod',
    attack: post('/api/v1/namespaces/acme/pods/placed/eviction', { metadata: { name: 'placed' } }),
    expect: refusedWith(403),
    control: {
      try: post('/api/v1/namespaces/acme/pods/placed/eviction', {
        metadata: { name: 'placed' },
        deleteOptions: { dryRun: ['All'] },
      }),
    },
  },
];

const service = (spec: object, metadata: object = {}) => ({
  metadata: { name: 'planted', ...metadata },
  spec: { ports: [{ port: 80 }], ...spec },
});

const services: Attempt[] = [
  ['an address of the nodes', { externalIPs: ['127.0.0.1'] }],
  ['addresses of others', { externalIPs: ['192.0.2.1', '10.96.0.1'] }],
  ['a port of the nodes', { type: 'NodePort', ports: [{ port: 80, nodePort: 30_080 }] }],
  ['a port of a load balancer', { type: 'LoadBalancer', ports: [{ port: 80, nodePort: 30_081 }] }],
].map(([name, spec]): Attempt => ({
  name: `makes a Service at ${name as string}`,
  attack: post(SERVICES, service(spec as object)),
  expect: refusedWith(403),
  control: { ...operator, try: dry(SERVICES, service(spec as object)) },
}));

/** The victim has one of the two addresses: of this the attacker must not hear. */
const probes: Attempt[] = [
  {
    name: 'asks for the cluster address that the victim has',
    by: ['bob'],
    attack: async (world, who) => {
      const { spec } = await world.want<{ spec: { clusterIP: string } }>('operator', {
        path: '/api/v1/namespaces/acme/services/target',
      });
      const ask = async (clusterIP: string) => {
        const made = await world.send(who, dry(SERVICES, service({ clusterIP })));
        return made.status;
      };
      const [taken, free] = [await ask(spec.clusterIP), await ask('10.96.0.77')];
      const text = taken === free ? '' : `${taken} and ${free}`;
      return { status: 200, headers: {}, text, tookMs: 0 };
    },
    expect: isSame,
    control: {
      by: ['bob'],
      try: async (world, who) => {
        const { spec } = await world.want<{ spec: { clusterIP: string } }>('operator', {
          path: `${SERVICES}/marker`,
        });
        const made = await world.send(who, dry(SERVICES, service({ clusterIP: spec.clusterIP })));
        return { ...made, text: made.status === 422 ? 'taken' : '' };
      },
      expect: ({ text }) => (text ? undefined : 'an address that is taken is given again'),
    },
  },
  {
    name: 'reaches through a Service to what is not its own',
    attack: { path: '/api/v1/namespaces/acme/services/target/proxy/' },
    expect: refusedWith(403),
    control: { try: { path: '/api/v1/namespaces/acme/services/target' } },
  },
  ...['endpoints', 'endpointslices'].map((resource): Attempt => {
    const prefix = resource === 'endpoints' ? '/api/v1' : '/apis/discovery.k8s.io/v1';
    const path = `${prefix}/namespaces/globex/${resource}`;
    const body =
      resource === 'endpoints'
        ? { subsets: [{ addresses: [{ ip: '169.254.169.254' }], ports: [{ port: 80 }] }] }
        : { addressType: 'IPv4', endpoints: [{ addresses: ['127.0.0.1'] }], ports: [] };
    return {
      name: `points ${resource} at the node`,
      attack: post(path, { metadata: { name: 'planted' }, ...body }),
      control: {
        ...operator,
        try: dry(path, {
          metadata: { name: 'planted' },
          ...(resource === 'endpoints' ? {} : { addressType: 'IPv4', endpoints: [], ports: [] }),
        }),
      },
    };
  }),
  ...['127.0.0.1:10250/proxy/pods', 'https:127.0.0.1:10250', 'node-1'].map((node): Attempt => ({
    name: `reaches ${node} through the proxy of nodes`,
    attack: { path: `/api/v1/nodes/${node}/proxy/` },
    control: { ...operator, try: { path: '/api/v1/nodes/node-1' } },
  })),
];

const owner =
  (kind: string, name: string, apiVersion = 'v1') =>
  (uid: string) => ({
    metadata: { name: 'planted', ownerReferences: [{ apiVersion, kind, name, uid }] },
  });

const OWNERS: Record<string, (uid: string) => object> = {
  'a node': owner('Node', 'node-1'),
  'a volume': owner('PersistentVolume', 'operators-own'),
  'a namespace of the victim': owner('Namespace', 'acme'),
  'a role of the operators': owner('ClusterRole', 'secret-role', 'rbac.authorization.k8s.io/v1'),
  'the victim': owner('Tenant', 'acme', 'hypernetes.io/v1'),
  'its own namespace': owner('Namespace', 'globex'),
};

const owned = Object.entries(OWNERS).flatMap(([name, make]): Attempt[] => {
  const path = `${NS}/configmaps`;
  const body = make('00000000-0000-0000-0000-000000000000');
  const control = { ...operator, try: dry(path, body) };
  const { metadata } = body as { metadata: object };
  const patched = { metadata: { ...metadata, name: 'marker' } };
  return [
    {
      name: `makes something that belongs to ${name}`,
      attack: post(path, body),
      expect: refusedWith(403),
      control,
    },
    {
      name: `gives something to ${name}`,
      attack: { method: 'PATCH', path: `${path}/marker`, body: patched },
      expect: refusedWith(403),
      control,
    },
  ];
});

const EVENTS = '/apis/events.k8s.io/v1/namespaces/globex/events';
const core = (involvedObject: object) => ({ metadata: { name: 'planted' }, involvedObject });
const modern = (fields: object) => ({
  metadata: { name: 'planted' },
  ...{ eventTime: '2026-01-01T00:00:00.000000Z', action: 'x', reason: 'x', type: 'Normal' },
  ...{ reportingController: 'example.org/c', reportingInstance: 'c', ...fields },
});
const alien = { kind: 'Pod', namespace: 'acme', name: 'target' };

const events: Attempt[] = [
  ['about the victims pod', `${NS}/events`, core(alien)],
  ['about a node', `${NS}/events`, core({ kind: 'Node', name: 'node-1' })],
  ['about the victims pod in the newer form', EVENTS, modern({ regarding: alien })],
  [
    'related to the victims pod',
    EVENTS,
    modern({ regarding: { ...alien, namespace: 'globex' }, related: alien }),
  ],
].map(([name, path, body]): Attempt => ({
  name: `makes an event ${name as string}`,
  attack: post(path as string, body as object),
  expect: refusedWith(403, 422),
  control: {
    by: ['bob'],
    try: dry(`${NS}/events`, core({ kind: 'Pod', namespace: 'globex', name: 'marker' })),
  },
}));

/** A body that says another namespace than the path. */
const crossed = [
  ...['configmaps', 'secrets', 'pods', 'serviceaccounts', 'services'].map((resource): Attempt => ({
    name: `makes ${resource} whose body says the victims namespace`,
    attack: post(`${NS}/${resource}`, { metadata: { name: 'planted', namespace: 'acme' } }),
    expect: refusedWith(400),
    control: { by: ['bob'], try: { path: `${NS}/${resource}` } },
  })),
  ...['acme/../globex', 'ACME', 'acme/x'].map((name): Attempt => ({
    name: `makes something called ${name}`,
    attack: post(`${NS}/configmaps`, { metadata: { name } }),
    expect: refusedWith(422),
    control: { by: ['bob'], try: dry(`${NS}/configmaps`, { metadata: { name: 'planted' } }) },
  })),
  {
    name: 'applies something into the victims namespace',
    attack: {
      ...{ method: 'PATCH', path: '/api/v1/namespaces/acme/configmaps/planted?fieldManager=x' },
      ...{ type: 'application/apply-patch+yaml', body: { apiVersion: 'v1', kind: 'ConfigMap' } },
    },
    expect: refusedWith(403),
    control: { try: { path: '/api/v1/namespaces/acme/configmaps/target' } },
  } satisfies Attempt,
  {
    name: 'changes a quota of its own',
    attack: { method: 'DELETE', path: `${NS}/resourcequotas/marker` },
    expect: refusedWith(403),
    control: {
      ...operator,
      try: { method: 'DELETE', path: `${NS}/resourcequotas/marker?dryRun=All` },
    },
  } satisfies Attempt,
  {
    name: 'writes into the leases of nodes',
    attack: post('/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases', {
      metadata: { name: 'node-1' },
    }),
    expect: refusedWith(403),
    control: {
      ...operator,
      try: dry('/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases', {
        metadata: { name: 'planted' },
      }),
    },
  } satisfies Attempt,
  ...['secrets', 'configmaps', 'serviceaccounts', 'pods', 'events'].map((resource): Attempt => ({
    name: `reads ${resource} of the cluster itself`,
    attack: { path: `/api/v1/namespaces/kube-system/${resource}` },
    expect: refusedWith(403),
    control: operator,
  })),
  {
    name: 'finds out by bad requests what is there',
    attack: compare('target', 'absent', (name) => ({
      ...{ method: 'PATCH', path: `/api/v1/namespaces/acme/configmaps/${name}`, body: '{"a":' },
    })),
    expect: isSame,
    control: { try: { path: '/api/v1/namespaces/acme/configmaps/target' } },
  } satisfies Attempt,
];

/** What the server tells of itself. */
const PATHS = [
  ...['/metrics', '/metrics/slis', '/logs', '/logs/', '/debug/pprof/', '/debug/pprof/heap'],
  ...['/configz', '/statusz', '/flagz', '/stats', '/'],
  ...['/openid/v1/jwks', '/.well-known/openid-configuration', '/api/v1/componentstatuses'],
];
const told = PATHS.map((path): Attempt => ({
  name: `reads ${path}`,
  by: ['bob'],
  attack: { path },
  expect: refused,
  control: { ...operator, try: { path: '/metrics' }, expect: shows('apiserver_request_total') },
}));
const discovered = [
  '/api',
  '/apis',
  '/openapi/v2',
  '/openapi/v3',
  '/version',
  '/readyz?verbose',
].map((path): Attempt => ({
  name: `reads ${path}`,
  attack: { path },
  expect: either(hides('acme', 'canary', 'node-1'), refused),
  control: operator,
}));

/** Nodes are shown to tenants here, without what tells of others. */
const nodes: Attempt[] = [
  '',
  '/node-1',
  '?watch=true&timeoutSeconds=1',
  '?labelSelector=secret',
].map((rest): Attempt => ({
  name: `looks at nodes${rest}`,
  by: ['bob'],
  attack: { path: `/api/v1/nodes${rest}` },
  expect: hides('podCIDR', 'capacity', 'addresses', 'images'),
  control: { ...operator, expect: shows('podCIDR') },
}));

export const OBJECT_ATTEMPTS: Attempt[] = [
  ...[pods, onPods, services, probes, owned, events].flat(),
  ...[crossed, told, discovered, nodes].flat(),
];
