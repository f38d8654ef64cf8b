import { badRequest, forbidden } from '../errors.ts';
import { newId } from '../directory.ts';
import type { Endpoint, Region, Service } from '../records.ts';
import type { Table } from '../table.ts';
import type { Call, Reply, Route } from './call.ts';
import { allow, filtered, listReply, NO_CONTENT, param } from './call.ts';
import { optional, readBody } from './fields.ts';
import type { FieldRules } from './fields.ts';
import { renderEndpoint, renderRegion, renderService } from './render.ts';

/*
 * Regions, services and endpoints: three kinds of one shape. Operators write them; everybody sees
 * what concerns a token in its catalogue.
 */
interface Kind<T extends { id: string }> {
  name: string;
  fields: FieldRules;
  table: (call: Call) => Table<T>;
  render: (baseUrl: string, record: T) => unknown;
  filters: Parameters<typeof filtered<T>>[2];
  /** From the fields of a body, over what is there. */
  apply: (fields: Record<string, unknown>, before: T) => T;
  /** Before anything is given. */
  empty: (id: string) => T;
  /** @throws KeystoneError when the record names what is not there */
  check: (call: Call, record: T) => void;
  /** Whether something else needs it. */
  inUse: (call: Call, id: string) => boolean;
}

const text = (value: unknown, before: string) => (value === undefined ? before : (value ?? ''));

/** The only id that a caller chooses. */
const REGION_ID = /^[\w.-]+$/;

const REGION: Kind<Region> = {
  name: 'region',
  fields: {
    id: { type: 'id' },
    description: { type: 'text', nullable: true },
    parent_region_id: { type: 'id', nullable: true },
    // Clients send it with everything of the catalogue; regions have no such state.
    enabled: { type: 'boolean' },
  },
  table: (call) => call.identity.state.tables.regions,
  render: renderRegion,
  filters: { parent_region_id: (region) => region.parentRegionId },
  empty: (id) => ({ id, description: '' }),
  apply: (fields, before) => ({
    ...before,
    id: (fields['id'] as string | undefined) ?? before.id,
    description: text(fields['description'], before.description) as string,
    ...(fields['parent_region_id'] !== undefined && {
      parentRegionId: (fields['parent_region_id'] as string | null) ?? undefined,
    }),
  }),
  check(call, { id, parentRegionId }) {
    const { regions } = call.identity.state.tables;
    if (!REGION_ID.test(id)) {
      const wanted = 'letters, digits, dots, dashes and underscores';
      throw badRequest(`Invalid input for field 'region.id': it may only have ${wanted}.`);
    }
    for (
      let next = parentRegionId;
      next !== undefined;
      next = regions.require(next).parentRegionId
    ) {
      if (next === id) throw forbidden(`Region ${id} cannot be above itself.`);
    }
  },
  inUse(call, id) {
    const { regions, endpoints } = call.identity.state.tables;
    return (
      regions.all().some(({ parentRegionId }) => parentRegionId === id) ||
      endpoints.all().some(({ regionId }) => regionId === id)
    );
  },
};

const SERVICE: Kind<Service> = {
  name: 'service',
  fields: {
    type: { type: 'name', required: true, lengthMax: 255 },
    name: { type: 'text', nullable: true },
    description: { type: 'text', nullable: true },
    enabled: { type: 'boolean' },
  },
  table: (call) => call.identity.state.tables.services,
  render: renderService,
  filters: { type: (service) => service.type, name: (service) => service.name },
  empty: (id) => ({ id, type: '', name: '', description: '', enabled: true }),
  apply: (fields, before) => ({
    ...before,
    type: (fields['type'] as string | undefined) ?? before.type,
    name: text(fields['name'], before.name) as string,
    description: text(fields['description'], before.description) as string,
    enabled: (fields['enabled'] as boolean | undefined) ?? before.enabled,
  }),
  check: () => {},
  inUse: (call, id) =>
    call.identity.state.tables.endpoints.all().some(({ serviceId }) => serviceId === id),
};

const INTERFACES = ['public', 'internal', 'admin'];

const ENDPOINT: Kind<Endpoint> = {
  name: 'endpoint',
  fields: {
    service_id: { type: 'id', required: true },
    interface: { type: 'string', required: true, lengthMax: 16 },
    url: { type: 'url', required: true },
    region_id: { type: 'id', nullable: true },
    region: { type: 'id', nullable: true },
    enabled: { type: 'boolean' },
    name: { type: 'text', nullable: true },
    description: { type: 'text', nullable: true },
  },
  table: (call) => call.identity.state.tables.endpoints,
  render: renderEndpoint,
  filters: {
    interface: (endpoint) => endpoint.interface,
    service_id: (endpoint) => endpoint.serviceId,
    region_id: (endpoint) => endpoint.regionId,
  },
  empty: (id) => ({ id, serviceId: '', interface: 'public', url: '', enabled: true }),
  apply(fields, before) {
    const region = fields['region_id'] ?? fields['region'];
    return {
      ...before,
      serviceId: (fields['service_id'] as string | undefined) ?? before.serviceId,
      interface: (fields['interface'] as Endpoint['interface'] | undefined) ?? before.interface,
      url: (fields['url'] as string | undefined) ?? before.url,
      enabled: (fields['enabled'] as boolean | undefined) ?? before.enabled,
      ...(typeof region === 'string' && { regionId: region }),
    };
  },
  check(call, { serviceId, regionId, interface: side, url }) {
    const { services, regions } = call.identity.state.tables;
    services.require(serviceId);
    if (regionId !== undefined) regions.require(regionId);
    const invalid = (field: string, wanted: string) =>
      badRequest(`Invalid input for field 'endpoint.${field}': it needs to be ${wanted}.`);
    if (!INTERFACES.includes(side)) throw invalid('interface', INTERFACES.join(', '));
    if (!/^https?:\/\/[^\s]+$/.test(url)) throw invalid('url', 'an http or https address');
  },
  inUse: () => false,
};

function routesOf<T extends { id: string }>(kind: Kind<T>): Route[] {
  const { name } = kind;
  const all = `/${name}s`;
  const one = `${all}/{id}`;
  const reply = (call: Call, record: T, status = 200): Reply => ({
    status,
    body: { [name]: kind.render(call.baseUrl, record) },
  });
  const readable = (call: Call) => allow(call, call.policy.systemReader);
  const writable = (call: Call) => allow(call, call.policy.systemAdmin);

  const list = (call: Call): Reply => {
    readable(call);
    const records = filtered(call, kind.table(call).all(), kind.filters);
    return listReply(
      call,
      `${name}s`,
      records.map((record) => kind.render(call.baseUrl, record)),
    );
  };
  const show = (call: Call): Reply => {
    readable(call);
    return reply(call, kind.table(call).require(param(call, 'id')));
  };
  const create = async (call: Call): Promise<Reply> => {
    writable(call);
    const fields = readBody(call.body, name, kind.fields);
    const record = kind.apply(fields, kind.empty(newId(call.identity.random)));
    kind.check(call, record);
    if (!(await kind.table(call).create(record))) {
      throw badRequest(`Invalid input for field '${name}.id': ${record.id} exists.`);
    }
    return reply(call, record, 201);
  };
  const update = async (call: Call): Promise<Reply> => {
    writable(call);
    const { id: _, ...fields } = readBody(call.body, name, optional(kind.fields));
    const before = kind.table(call).require(param(call, 'id'));
    kind.check(call, kind.apply(fields, before));
    const change = (current: T) => kind.apply(fields, current);
    return reply(call, await kind.table(call).update(before.id, change));
  };
  const remove = async (call: Call): Promise<Reply> => {
    writable(call);
    const { id } = kind.table(call).require(param(call, 'id'));
    if (kind.inUse(call, id)) throw forbidden(`Unable to delete ${name} ${id}: it is in use.`);
    await kind.table(call).remove(id);
    return NO_CONTENT;
  };
  return [
    { method: 'GET', path: all, action: `identity:list_${name}s`, handle: list },
    { method: 'POST', path: all, action: `identity:create_${name}`, handle: create },
    { method: 'GET', path: one, action: `identity:get_${name}`, handle: show },
    { method: 'PATCH', path: one, action: `identity:update_${name}`, handle: update },
    { method: 'DELETE', path: one, action: `identity:delete_${name}`, handle: remove },
  ];
}

export const CATALOG_ROUTES: Route[] = [
  ...routesOf(REGION),
  ...routesOf(SERVICE),
  ...routesOf(ENDPOINT),
];
