import { refusedWith, shows } from '../support/attempt.ts';
import type { Attempt } from '../support/attempt.ts';

type Headers = Record<string, string | string[]>;

const ROBOT = 'system:serviceaccount:globex:robot';
const ALIEN = 'system:serviceaccount:acme:default';
const OPERATORS = 'system:masters';

/** Everybody and everything that the attacker would like to be. */
const ACTED: Record<string, Headers> = {
  'the administrator': { 'impersonate-user': 'kubernetes-admin' },
  'a master': { 'impersonate-user': 'x', 'impersonate-group': OPERATORS },
  'the victims account': { 'impersonate-user': ALIEN },
  'the victims account with its group': {
    ...{ 'impersonate-user': ALIEN, 'impersonate-group': 'system:serviceaccounts:acme' },
  },
  'a member of the victim': { 'impersonate-user': 'x', 'impersonate-group': 'tenant:acme' },
  'an admin of the victim': { 'impersonate-user': 'x', 'impersonate-group': 'tenant:acme:admin' },
  'an operator': { 'impersonate-user': 'x', 'impersonate-group': 'hypernetes:operators' },
  'its own account as a master': { 'impersonate-user': ROBOT, 'impersonate-group': OPERATORS },
  'its own account in the victim': {
    ...{ 'impersonate-user': ROBOT, 'impersonate-group': 'tenant:acme:admin' },
  },
  'its own account with the group of all accounts': {
    ...{ 'impersonate-user': ROBOT, 'impersonate-group': 'system:serviceaccounts' },
  },
  'its own account with another uid': {
    ...{ 'impersonate-user': ROBOT, 'impersonate-uid': '1234' },
  },
  'its own account with a pod': {
    'impersonate-user': ROBOT,
    'impersonate-extra-authentication.kubernetes.io%2fpod-name': 'target',
  },
  'its own account with a project': {
    'impersonate-user': ROBOT,
    'impersonate-extra-hypernetes.io%2fproject-id': 'acme',
  },
  'its own account with a tenant': {
    'impersonate-user': ROBOT,
    'impersonate-extra-tenant': 'acme',
  },
  'several groups in one header': {
    ...{ 'impersonate-user': ROBOT, 'impersonate-group': `tenant:globex,${OPERATORS}` },
  },
  'several groups in two headers': {
    ...{ 'impersonate-user': ROBOT, 'impersonate-group': ['tenant:globex', OPERATORS] },
  },
  'two users': { 'impersonate-user': [ROBOT, 'kubernetes-admin'] },
  'two users in one header': { 'impersonate-user': `${ROBOT},kubernetes-admin` },
  'a node': { 'impersonate-user': 'system:node:node-1', 'impersonate-group': 'system:nodes' },
  'the scheduler': { 'impersonate-user': 'system:kube-scheduler' },
  'the controllers': { 'impersonate-user': 'system:kube-controller-manager' },
  'nobody at all': { 'impersonate-user': 'system:anonymous' },
  'an account with a strange name': { 'impersonate-user': 'system:serviceaccount:acme:default:x' },
  'an account without a namespace': { 'impersonate-user': 'system:serviceaccount::default' },
  'an account with a namespace like a path': {
    'impersonate-user': 'system:serviceaccount:globex/../acme:default',
  },
  'a group without a user': { 'impersonate-group': OPERATORS },
  'a uid without a user': { 'impersonate-uid': '1' },
  'an extra without a user': { 'impersonate-extra-scopes': 'all' },
  'the cluster itself': { 'impersonate-user': 'system:apiserver', 'impersonate-group': OPERATORS },
};

const path = '/api/v1/namespaces/acme/secrets/target';

const acted = (['http1', 'http2'] as const).flatMap((via) =>
  Object.entries(ACTED).map(([name, headers]): Attempt => ({
    name: `acts as ${name} over ${via}`,
    attack: { path, headers: joined(headers, via), via },
    expect: refusedWith(400, 403),
    control: {
      by: ['operator'],
      try: { path, via, headers: { 'impersonate-user': 'x', 'impersonate-group': OPERATORS } },
      expect: shows('canary-'),
    },
  })),
);

/** HTTP/2 as Node.js sends it has no header twice; a list is the same to a server. */
function joined(headers: Headers, via: 'http1' | 'http2'): Headers {
  if (via === 'http1') return headers;
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, [value].flat().join(', ')]),
  );
}

/** Rights that it gives itself inside of its own namespace. */
const rbac = 'rbac.authorization.k8s.io';
const granted: Attempt[] = ['users', 'groups', 'serviceaccounts'].map((resource) => ({
  name: `gives itself the right to act as ${resource}`,
  attack: async (world, who) => {
    const rule = { apiGroups: [''], resources: [resource], verbs: ['impersonate'] };
    const name = `act-${resource}`;
    const roles = `/apis/${rbac}/v1/namespaces/globex/roles`;
    await world.send('operator', {
      ...{ method: 'POST', path: roles, body: { metadata: { name }, rules: [rule] } },
    });
    await world.send('operator', {
      ...{ method: 'POST', path: `/apis/${rbac}/v1/namespaces/globex/rolebindings` },
      body: {
        metadata: { name },
        roleRef: { apiGroup: rbac, kind: 'Role', name },
        subjects: [{ kind: 'Group', apiGroup: rbac, name: 'tenant:globex' }],
      },
    });
    const user = resource === 'serviceaccounts' ? ALIEN : 'kubernetes-admin';
    const answer = await world.send(who, { path, headers: { 'impersonate-user': user } });
    for (const kind of ['rolebindings', 'roles']) {
      const made = `/apis/${rbac}/v1/namespaces/globex/${kind}/${name}`;
      await world.send('operator', { method: 'DELETE', path: made });
    }
    return answer;
  },
  expect: refusedWith(403),
  control: {
    by: ['operator'],
    try: { path, headers: { 'impersonate-user': 'x', 'impersonate-group': OPERATORS } },
  },
}));

export const IMPERSONATION_ATTEMPTS: Attempt[] = [...acted, ...granted];
