import {
  compare,
  differs,
  hides,
  isSame,
  refused,
  refusedWith,
  shows,
} from '../support/attempt.ts';
import type { Attempt } from '../support/attempt.ts';
import type { Request } from '../support/client.ts';

const RBAC = 'rbac.authorization.k8s.io';
const API = `/apis/${RBAC}/v1`;
const operator = { by: ['operator' as const] };

const post = (path: string, body: object): Request => ({ method: 'POST', path, body });
const dry = (path: string, body: object): Request => post(`${path}?dryRun=All`, body);

const bindings = `${API}/namespaces/globex/rolebindings`;
const roles = `${API}/namespaces/globex/roles`;

const binding = (roleRef: object, subjects: object[]) => ({
  ...{ metadata: { name: 'planted' }, roleRef: { apiGroup: RBAC, ...roleRef }, subjects },
});
const me = [{ kind: 'Group', apiGroup: RBAC, name: 'tenant:globex' }];

/** Roles that it holds nothing of, bound to itself in its own namespace. */
const bound = [
  'cluster-admin',
  'system:node',
  'system:kube-controller-manager',
  'system:kubelet-api-admin',
  'hypernetes:tenant-admin',
].map((name): Attempt => {
  const body = binding({ kind: 'ClusterRole', name }, me);
  return {
    name: `binds ${name} to itself`,
    attack: post(bindings, body),
    expect: refusedWith(403, 404),
    control: { ...operator, try: dry(bindings, body) },
  };
});

const RULES: Record<string, object> = {
  everything: { apiGroups: ['*'], resources: ['*'], verbs: ['*'] },
  'acting as users': { apiGroups: [''], resources: ['users', 'groups'], verbs: ['impersonate'] },
  'binding and escalating': { apiGroups: [RBAC], resources: ['*'], verbs: ['bind', 'escalate'] },
  'nodes and their proxies': { apiGroups: [''], resources: ['nodes/proxy'], verbs: ['get'] },
  'quotas of its own': { apiGroups: [''], resources: ['resourcequotas'], verbs: ['delete'] },
};

const written = Object.entries(RULES).map(([name, rule]): Attempt => {
  const body = { metadata: { name: 'planted' }, rules: [rule] };
  return {
    name: `writes a role of ${name}`,
    attack: post(roles, body),
    expect: refusedWith(403),
    control: { ...operator, try: dry(roles, body) },
  };
});

const aggregated: Attempt[] = [
  {
    name: 'labels a ClusterRole so that it is added to admin',
    attack: post(`${API}/clusterroles`, {
      metadata: { name: 'planted', labels: { [`${RBAC}/aggregate-to-admin`]: 'true' } },
      rules: [RULES.everything],
    }),
    control: {
      ...operator,
      try: dry(`${API}/clusterroles`, { metadata: { name: 'planted' }, rules: [] }),
    },
  },
  {
    name: 'adds to the ClusterRole admin',
    attack: { method: 'PATCH', path: `${API}/clusterroles/admin`, body: { rules: [] } },
    control: {
      ...operator,
      try: {
        ...{ method: 'PATCH', path: `${API}/clusterroles/admin?dryRun=All` },
        body: { metadata: { labels: { x: 'y' } } },
      },
    },
  },
  {
    name: 'reads a ClusterRole that the operator made',
    attack: { path: `${API}/clusterroles/operators-own` },
    control: { ...operator, expect: shows('canary-clusterroles') },
  },
  {
    name: 'finds a ClusterRole of the operators in the list',
    by: ['bob'],
    attack: { path: `${API}/clusterroles` },
    expect: hides('operators-own'),
    control: { ...operator, expect: shows('canary-clusterroles') },
  },
  {
    name: 'learns by binding it what a hidden ClusterRole has',
    attack: compare('secret-role', 'absent-role', (name) =>
      post(bindings, binding({ kind: 'ClusterRole', name }, me)),
    ),
    expect: isSame,
    control: {
      ...operator,
      try: compare('secret-role', 'absent-role', (name) =>
        dry(bindings, binding({ kind: 'ClusterRole', name }, me)),
      ),
      expect: differs,
    },
  },
];

/** Rights that the victim, or the operator by mistake, gives to the attacker: useless all of them. */
const SUBJECTS: Record<string, object> = {
  'a service account': { kind: 'ServiceAccount', namespace: 'globex', name: 'robot' },
  'its group': { kind: 'Group', apiGroup: RBAC, name: 'tenant:globex' },
  everybody: { kind: 'Group', apiGroup: RBAC, name: 'system:authenticated' },
  'all service accounts': { kind: 'Group', apiGroup: RBAC, name: 'system:serviceaccounts' },
};

const given = Object.entries(SUBJECTS).flatMap(([name, subject]): Attempt[] => {
  const grant = (path: string, role: string) =>
    post(path, {
      ...binding({ kind: 'ClusterRole', name: role }, [subject]),
      metadata: { name: `given-${Math.random().toString(36).slice(2)}` },
    });
  const secret = '/api/v1/namespaces/acme/secrets/target';
  return [
    {
      name: `uses what the victim gave to ${name}`,
      attack: async (world, who) => {
        // The binding is there for the attempt alone: it is the victim's own doing.
        const path = `${API}/namespaces/acme/rolebindings`;
        const { metadata } = await world.want('operator', grant(path, 'admin'));
        const answer = await world.send(who, { path: secret });
        await world.want('operator', { method: 'DELETE', path: `${path}/${metadata.name}` });
        return answer;
      },
      expect: refusedWith(403),
      control: { try: { path: secret }, expect: shows('canary-') },
    },
    {
      name: `uses what the operator gave to ${name} everywhere`,
      attack: async (world, who) => {
        const path = `${API}/clusterrolebindings`;
        const { metadata } = await world.want('operator', grant(path, 'cluster-admin'));
        const answer = await world.send(who, { path: secret });
        const listed = await world.send(who, { path: '/api/v1/secrets' });
        await world.want('operator', { method: 'DELETE', path: `${path}/${metadata.name}` });
        return answer.status === 403 ? listed : answer;
      },
      expect: hides('"namespace":"acme'),
      control: { try: { path: '/api/v1/secrets' }, expect: shows('canary-') },
    },
  ];
});

const AUTHENTICATION = '/apis/authentication.k8s.io/v1';
const AUTHORIZATION = '/apis/authorization.k8s.io/v1';
const secrets = { namespace: 'acme', verb: 'get', resource: 'secrets' };

const asked: Attempt[] = [
  {
    name: 'has the victims token reviewed',
    attack: (world) =>
      post(`${AUTHENTICATION}/tokenreviews`, { spec: { token: world.credentials.alice.token } }),
    control: { ...operator, expect: shows('"authenticated":true') },
  },
  {
    name: 'asks what a user of the victim may',
    attack: post(`${AUTHORIZATION}/subjectaccessreviews`, {
      spec: { user: 'x', groups: ['tenant:acme:admin'], resourceAttributes: secrets },
    }),
    control: { ...operator, expect: shows('"allowed":true') },
  },
  {
    name: 'asks it in the victims namespace',
    attack: post(`${AUTHORIZATION}/namespaces/acme/localsubjectaccessreviews`, {
      spec: { user: 'x', groups: ['tenant:acme:admin'], resourceAttributes: secrets },
    }),
    control: { expect: shows('"allowed":true') },
  },
  {
    name: 'asks in its own namespace about the victims group',
    by: ['bob'],
    attack: post(`${AUTHORIZATION}/namespaces/globex/localsubjectaccessreviews`, {
      spec: {
        ...{ user: 'x', groups: ['tenant:acme:admin'] },
        resourceAttributes: { ...secrets, namespace: 'globex' },
      },
    }),
    expect: shows('"allowed":false'),
    control: {
      try: post(`${AUTHORIZATION}/namespaces/acme/localsubjectaccessreviews`, {
        spec: { user: 'x', groups: ['tenant:acme:admin'], resourceAttributes: secrets },
      }),
      expect: shows('"allowed":true'),
    },
  },
  {
    name: 'asks whether it may read the victims secrets',
    attack: post(`${AUTHORIZATION}/selfsubjectaccessreviews`, {
      spec: { resourceAttributes: secrets },
    }),
    expect: shows('"allowed":false'),
    control: { expect: shows('"allowed":true') },
  },
  {
    name: 'finds out by asking for its rights whether a namespace is there',
    attack: compare('acme', 'nobody', (namespace) =>
      post(`${AUTHORIZATION}/selfsubjectaccessreviews`, {
        spec: { resourceAttributes: { ...secrets, namespace } },
      }),
    ),
    expect: isSame,
    control: {
      try: compare('acme', 'nobody', (namespace) =>
        post(`${AUTHORIZATION}/selfsubjectaccessreviews`, {
          spec: { resourceAttributes: { ...secrets, namespace } },
        }),
      ),
      expect: differs,
    },
  },
  {
    name: 'has its rules in the victims namespace told',
    attack: compare('acme', 'nobody', (namespace) =>
      post(`${AUTHORIZATION}/selfsubjectrulesreviews`, { spec: { namespace } }),
    ),
    expect: isSame,
    control: {
      try: post(`${AUTHORIZATION}/selfsubjectrulesreviews`, { spec: { namespace: 'acme' } }),
      expect: shows('"secrets"'),
    },
  },
];

const tokenOf = (account: string) => `/api/v1/namespaces/${account}/token`;

const minted: Attempt[] = [
  ...['acme/serviceaccounts/default', 'acme/serviceaccounts/target'].map((account): Attempt => ({
    name: `mints a token for ${account}`,
    attack: post(tokenOf(account), { spec: {} }),
    control: { expect: shows('"token"') },
  })),
  {
    name: 'mints a token for an account of the system',
    attack: post(tokenOf('kube-system/serviceaccounts/default'), { spec: {} }),
    control: { ...operator, expect: shows('"token"') },
  },
  {
    name: 'has a token bound to the victims pod',
    attack: (world) =>
      post(tokenOf('globex/serviceaccounts/default'), {
        spec: { boundObjectRef: { kind: 'Pod', name: 'target', uid: world.uids['pods/target'] } },
      }),
    control: {
      try: (world) =>
        post(tokenOf('acme/serviceaccounts/default'), {
          spec: { boundObjectRef: { kind: 'Pod', name: 'target', uid: world.uids['pods/target'] } },
        }),
    },
  },
  {
    name: 'finds out by binding a token to it whether a node is there',
    attack: compare('node-1', 'node-9', (name) =>
      post(tokenOf('globex/serviceaccounts/default'), {
        spec: { boundObjectRef: { kind: 'Node', name, uid: 'x' } },
      }),
    ),
    expect: isSame,
    control: {
      ...operator,
      try: compare('node-1', 'node-9', (name) =>
        post(tokenOf('globex/serviceaccounts/default'), {
          spec: { boundObjectRef: { kind: 'Node', name, uid: 'x' } },
        }),
      ),
      expect: differs,
    },
  },
  {
    name: 'asks for a certificate',
    attack: {
      ...{ method: 'POST', path: '/apis/certificates.k8s.io/v1/certificatesigningrequests' },
      body: { metadata: { name: 'planted' }, spec: {} },
    },
    expect: refusedWith(403),
    control: {
      ...operator,
      try: { path: '/apis/certificates.k8s.io/v1/certificatesigningrequests' },
    },
  },
  {
    name: 'looks at requests for certificates',
    attack: { path: '/apis/certificates.k8s.io/v1/certificatesigningrequests' },
    expect: refused,
    control: operator,
  },
];

export const RIGHTS_ATTEMPTS: Attempt[] = [
  ...bound,
  ...written,
  ...aggregated,
  ...given,
  ...asked,
  ...minted,
];
