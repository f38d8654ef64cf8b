import type { Reply } from './call.ts';

/** The version of Keystone whose v3 API this is a part of. */
const VERSION = {
  id: 'v3.14',
  status: 'stable',
  updated: '2020-04-07T00:00:00Z',
};

function version(baseUrl: string) {
  const type = 'application/vnd.openstack.identity-v3+json';
  return {
    ...VERSION,
    links: [{ rel: 'self', href: `${baseUrl}/` }],
    'media-types': [{ base: 'application/json', type }],
  };
}

/** Answers to `/identity` and `/identity/v3`, which clients ask before anything else. */
export function versionReply(path: string, baseUrl: string): Reply | undefined {
  if (path === '') return { status: 300, body: { versions: { values: [version(baseUrl)] } } };
  if (path === '/v3') return { status: 200, body: { version: version(baseUrl) } };
  return undefined;
}
