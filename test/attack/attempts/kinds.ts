import type { ResourceRow } from '../../../src/api/schema/schema.ts';
import { hides, refusedWith, shows } from '../support/attempt.ts';
import type { Attempt } from '../support/attempt.ts';
import { kindOf, NAMESPACED_KINDS, prefixOf } from '../support/kinds.ts';
import { minimal } from '../support/objects.ts';
import type { World } from '../support/world.ts';

const OUTSIDE = refusedWith(403);
const collectionOf = (row: ResourceRow) => `${prefixOf(row)}/namespaces/acme/${row.resource}`;
const targetOf = (row: ResourceRow) => `${collectionOf(row)}/target`;
const uidOf = (row: ResourceRow) => (world: World) => world.uids[`${kindOf(row)}/target`] ?? '';
/** A watch has told the first that it has to tell. */
const oneEvent = (text: string) => text.includes('\n');

function reads(row: ResourceRow): Attempt[] {
  const watch = {
    path: `${collectionOf(row)}?watch=true&fieldSelector=metadata.name%3Dtarget`,
    until: oneEvent,
  };
  const seen = shows(uidOf(row));
  return [
    {
      name: `get ${kindOf(row)}`,
      attack: { path: targetOf(row) },
      ...{ expect: OUTSIDE, control: { expect: seen } },
    },
    {
      name: `list ${kindOf(row)} of a namespace`,
      attack: { path: collectionOf(row) },
      ...{ expect: OUTSIDE, control: { expect: seen } },
    },
    {
      name: `watch ${kindOf(row)} of a namespace`,
      attack: watch,
      ...{ expect: OUTSIDE, control: { expect: seen } },
    },
  ];
}

/** Controls are dry runs: there has to be something left for the next attempt. */
function writes(row: ResourceRow): Attempt[] {
  const target = targetOf(row);
  const body = minimal(kindOf(row), 'acme', 'planted', 'planted');
  const patch = { metadata: { labels: { planted: 'yes' } } };
  const write = (name: string, method: string, path: string, sent?: object): Attempt => ({
    name: `${name} ${kindOf(row)}`,
    attack: { method, path, ...(sent ? { body: sent } : {}) },
    expect: OUTSIDE,
    control: { try: { method, path: `${path}?dryRun=All`, ...(sent ? { body: sent } : {}) } },
  });
  const update: Attempt = {
    name: `update ${kindOf(row)}`,
    attack: { method: 'PUT', path: target, body: minimal(kindOf(row), 'acme', 'target', 'x') },
    expect: OUTSIDE,
    control: {
      try: async (world) => {
        const found = await world.want('operator', { path: target });
        return { method: 'PUT', path: `${target}?dryRun=All`, body: found };
      },
    },
  };
  return [
    write('create', 'POST', collectionOf(row), body),
    update,
    write('patch', 'PATCH', target, patch),
    write('delete', 'DELETE', target),
    write('delete all', 'DELETE', collectionOf(row)),
  ];
}

/** Over all namespaces the attacker is answered, with what is its own. */
function lists(row: ResourceRow): Attempt[] {
  const all = `${prefixOf(row)}/${row.resource}`;
  const seen = shows(uidOf(row));
  const own = '"namespace":"acme';
  return [
    {
      name: `list ${kindOf(row)} of all namespaces`,
      attack: { path: all },
      expect: hidesOrRefuses(own),
      control: { expect: seen },
    },
    {
      name: `watch ${kindOf(row)} of all namespaces`,
      // What is the attacker's sorts after what is the victim's, so that would have come before.
      attack: { path: `${all}?watch=true`, until: (text) => text.includes('"name":"marker"') },
      expect: hidesOrRefuses(own),
      control: {
        by: ['operator'],
        try: (world) => ({
          path: `${all}?watch=true`,
          until: (text) => text.includes(uidOf(row)(world)),
        }),
        expect: seen,
      },
    },
  ];
}

/** Kinds that tenants have no right to are refused instead. */
const hidesOrRefuses = (text: string) => (answer: Parameters<typeof OUTSIDE>[0], world: World) =>
  answer.status === 403 ? undefined : hides(text)(answer, world);

/** Every verb at every namespaced kind of the victim's, by its path. */
export const KIND_ATTEMPTS: Attempt[] = NAMESPACED_KINDS.flatMap((row) => [
  ...reads(row),
  ...writes(row),
  ...lists(row),
]);
