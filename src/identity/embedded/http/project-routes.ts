import { badRequest, forbidden, notAuthorized, notFound } from '../errors.ts';
import type { Project } from '../records.ts';
import { descendants, lineage, PROJECT_DEPTH_MAX } from '../rights.ts';
import { LIMITS } from '../settings.ts';
import type { IdentityState } from '../state.ts';
import type { Call, Reply, Route } from './call.ts';
import { allow, filtered, listReply, NO_CONTENT, param, queryFlag, visible } from './call.ts';
import { optional, readBody, readFields, readStrings } from './fields.ts';
import type { FieldRules } from './fields.ts';
import { homeDomain } from './home-domain.ts';
import { renderProject } from './render.ts';

const FIELDS: FieldRules = {
  name: { type: 'name', required: true },
  domain_id: { type: 'id', nullable: true },
  parent_id: { type: 'id', nullable: true },
  description: { type: 'text', nullable: true },
  enabled: { type: 'boolean' },
  is_domain: { type: 'boolean' },
  tags: { type: 'array' },
  options: { type: 'object' },
};

const reply = (call: Call, project: Project, status = 200): Reply => ({
  status,
  body: { project: renderProject(call.baseUrl, project) },
});

const projects = (call: Call) => call.identity.state.tables.projects;

function find(call: Call): Project {
  const id = param(call, 'project_id');
  return visible(call, 'project', id, projects(call).get(id), call.policy.readProject);
}

function list(call: Call): Reply {
  if (call.caller.session.scope.kind === 'unscoped') throw notAuthorized(call.action);
  const tags = call.query.get('tags')?.split(',') ?? [];
  const all = projects(call).all().filter(call.policy.readProject);
  const kept = filtered(call, all, {
    name: (project) => project.name,
    domain_id: (project) => project.domainId,
    parent_id: (project) => project.parentId ?? project.domainId,
    enabled: (project) => project.enabled,
  }).filter((project) => tags.every((tag) => project.tags.includes(tag)));
  const shown = queryFlag(call, 'is_domain') ? [] : kept;
  return listReply(
    call,
    'projects',
    shown.map((project) => renderProject(call.baseUrl, project)),
  );
}

function readTags(value: unknown, at: string): string[] {
  const tags = [...new Set(readStrings(value, at, LIMITS.tagLength))];
  if (tags.length > LIMITS.tagCount) {
    throw badRequest(`Invalid input for field '${at}': more than ${LIMITS.tagCount} tags.`);
  }
  for (const tag of tags) checkTag(tag, at);
  return tags;
}

function checkTag(tag: string, at: string): void {
  if (tag !== '' && tag.length <= LIMITS.tagLength && !/[,/\p{Cc}]/u.test(tag)) return;
  const limit = `1 to ${LIMITS.tagLength} characters without commas and slashes`;
  throw badRequest(`Invalid input for field '${at}': a tag needs ${limit}.`);
}

async function create(call: Call): Promise<Reply> {
  const fields = readBody(call.body, 'project', FIELDS);
  if (fields['is_domain'] === true) {
    throw badRequest("Invalid input for field 'project.is_domain': make a domain instead.");
  }
  const parentId = (fields['parent_id'] as string | null | undefined) ?? undefined;
  const given = fields['domain_id'] as string | null | undefined;
  const { tables } = call.identity.state;
  // The parent of a project right below its domain is that domain, for Keystone.
  const isDomain = parentId !== undefined && tables.domains.get(parentId) !== undefined;
  const parent = parentId === undefined ? undefined : tables.projects.get(parentId);
  const domainId = given ?? (isDomain ? parentId : parent?.domainId) ?? homeDomain(call);
  allow(call, call.policy.adminDomain(domainId));
  if (isDomain && parentId !== domainId) throw notFound('project', parentId);
  const project = await call.identity.directory.createProject({
    name: fields['name'] as string,
    domainId,
    ...(parentId !== undefined && !isDomain && { parentId }),
    description: (fields['description'] as string | null | undefined) ?? '',
    enabled: (fields['enabled'] as boolean | undefined) ?? true,
    tags: fields['tags'] === undefined ? [] : readTags(fields['tags'], 'project.tags'),
  });
  return reply(call, project, 201);
}

function mayChange(call: Call): Project {
  const project = find(call);
  allow(call, call.policy.adminDomain(project.domainId));
  return project;
}

async function update(call: Call): Promise<Reply> {
  const project = mayChange(call);
  const fields = readBody(call.body, 'project', optional(FIELDS));
  const { name, description, enabled, tags, domain_id: domainId, parent_id: parentId } = fields;
  if (parentId !== undefined && parentId !== (project.parentId ?? project.domainId)) {
    throw forbidden('Update of `parent_id` is not allowed.');
  }
  const changed = await call.identity.directory.updateProject(project.id, {
    ...(name !== undefined && { name: name as string }),
    ...(typeof domainId === 'string' && { domainId }),
    ...(description !== undefined && { description: (description as string | null) ?? '' }),
    ...(enabled !== undefined && { enabled: enabled as boolean }),
    ...(tags !== undefined && { tags: readTags(tags, 'project.tags') }),
  });
  return reply(call, changed);
}

async function remove(call: Call): Promise<Reply> {
  await call.identity.directory.deleteProject(mayChange(call).id);
  return NO_CONTENT;
}

/** With what is above and below it, as far as the query asks for that. */
function show(call: Call): Reply {
  const project = find(call);
  const { state } = call.identity;
  const render = (one: Project) => ({ project: renderProject(call.baseUrl, one) });
  const readable = (one: Project) => call.policy.readProject(one);
  const above = lineage(state, project).slice(1).filter(readable);
  const related: Record<string, () => unknown> = {
    parents_as_list: () => above.map(render),
    parents_as_ids: () => above.reduceRight<unknown>((inner, { id }) => ({ [id]: inner }), null),
    subtree_as_list: () => descendants(state, project.id).filter(readable).map(render),
    subtree_as_ids: () => subtreeIds(state, project.id, readable),
  };
  const extra: Record<string, unknown> = {};
  for (const [name, compute] of Object.entries(related)) {
    if (queryFlag(call, name)) extra[name.replace(/_as_.*/, '')] = compute();
  }
  return { status: 200, body: { project: { ...renderProject(call.baseUrl, project), ...extra } } };
}

function subtreeIds(
  state: IdentityState,
  projectId: string,
  readable: (project: Project) => boolean,
  levels = PROJECT_DEPTH_MAX,
): unknown {
  const children = levels === 0 ? [] : state.childrenOf(projectId).filter(readable);
  if (children.length === 0) return null;
  return Object.fromEntries(
    children.map(({ id }) => [id, subtreeIds(state, id, readable, levels - 1)]),
  );
}

async function setTags(call: Call, change: (tags: string[]) => string[]): Promise<Project> {
  const { id } = mayChange(call);
  return projects(call).update(id, (project) => ({ ...project, tags: change(project.tags) }));
}

async function replaceTags(call: Call): Promise<Reply> {
  const { tags } = readFields(call.body, 'body', { tags: { type: 'array', required: true } });
  const wanted = readTags(tags, 'tags');
  const project = await setTags(call, () => wanted);
  return listReply(call, 'tags', project.tags, `/projects/${project.id}/tags`);
}

async function addTag(call: Call): Promise<Reply> {
  const tag = param(call, 'tag');
  checkTag(tag, 'tag');
  await setTags(call, (tags) => readTags([...tags, tag], 'tags'));
  return { status: 201 };
}

async function removeTag(call: Call): Promise<Reply> {
  const tag = param(call, 'tag');
  if (!mayChange(call).tags.includes(tag)) throw notFound('project tag', tag);
  await setTags(call, (tags) => tags.filter((other) => other !== tag));
  return NO_CONTENT;
}

function checkHasTag(call: Call): Reply {
  const tag = param(call, 'tag');
  if (!find(call).tags.includes(tag)) throw notFound('project tag', tag);
  return NO_CONTENT;
}

async function clearTags(call: Call): Promise<Reply> {
  await setTags(call, () => []);
  return NO_CONTENT;
}

function listTags(call: Call): Reply {
  const { id, tags } = find(call);
  return listReply(call, 'tags', tags, `/projects/${id}/tags`);
}

const ONE = '/projects/{project_id}';
const TAGS = `${ONE}/tags`;
const TAG = `${TAGS}/{tag}`;

export const PROJECT_ROUTES: Route[] = [
  { method: 'GET', path: '/projects', action: 'identity:list_projects', handle: list },
  { method: 'POST', path: '/projects', action: 'identity:create_project', handle: create },
  { method: 'GET', path: ONE, action: 'identity:get_project', handle: show },
  { method: 'PATCH', path: ONE, action: 'identity:update_project', handle: update },
  { method: 'DELETE', path: ONE, action: 'identity:delete_project', handle: remove },
  { method: 'GET', path: TAGS, action: 'identity:list_project_tags', handle: listTags },
  { method: 'PUT', path: TAGS, action: 'identity:update_project_tags', handle: replaceTags },
  { method: 'DELETE', path: TAGS, action: 'identity:delete_project_tags', handle: clearTags },
  { method: 'GET', path: TAG, action: 'identity:get_project_tag', handle: checkHasTag },
  { method: 'PUT', path: TAG, action: 'identity:create_project_tag', handle: addTag },
  { method: 'DELETE', path: TAG, action: 'identity:delete_project_tag', handle: removeTag },
];
