import { dns1123Label, qualifiedName } from '../../names.ts';
import { compareQuantities } from '../../quantity.ts';
import { isTenantQuotaName } from '../../tenant-quota.ts';
import { TENANT_NAME_LENGTH_MAX } from '../../tenancy.ts';
import { fields, items, text } from './report.ts';
import type { Fields, Report } from './report.ts';

const MEMBERS_MAX = 1_000;
const LIMITS_MAX = 100;
const MEMBER_NAME_LENGTH_MAX = 255;
const PROJECT_ID_LENGTH_MAX = 64;

/** Names that are the cluster's own, and beginnings of such names. */
const RESERVED_NAMES = new Set(['default', 'system', 'cluster']);
const RESERVED_BEGINNINGS = ['kube-', 'hypernetes', 'system-'];

export function checkTenant(tenant: Fields, report: Report): void {
  checkName(text(fields(tenant['metadata'])['name']), report.at('metadata', 'name'));
  const spec = fields(tenant['spec']);
  const at = report.at('spec');
  if (text(spec['projectID']).length > PROJECT_ID_LENGTH_MAX) {
    at.at('projectID').tooLong(PROJECT_ID_LENGTH_MAX);
  }
  const parent = text(spec['parent']);
  const name = text(fields(tenant['metadata'])['name']);
  if (parent && !name.startsWith(`${parent}-`)) {
    at.at('parent').invalid(parent, `the name of its sub-tenants begins with "${parent}-"`);
  }
  const hard = fields(fields(spec['quota'])['hard']);
  const count = Object.keys(hard).length;
  // Each of them is looked at for each object that is made.
  if (count > LIMITS_MAX) return at.at('quota', 'hard').tooMany(count, LIMITS_MAX);
  checkQuantities(hard, at.at('quota', 'hard'));
  for (const limit of Object.keys(hard)) {
    if (isTenantQuotaName(limit)) continue;
    at.at('quota', 'hard').key(limit).invalid(limit, 'must be the name of something counted');
  }
  const defaults = fields(spec['defaults']);
  checkQuantities(fields(defaults['resources']), at.at('defaults', 'resources'));
  checkMembers(items(spec['members']), at.at('members'));
}

function checkName(name: string, report: Report): void {
  report.invalidAll(name, dns1123Label(name));
  if (name.length > TENANT_NAME_LENGTH_MAX) report.tooLong(TENANT_NAME_LENGTH_MAX);
  const isReserved =
    RESERVED_NAMES.has(name) || RESERVED_BEGINNINGS.some((start) => name.startsWith(start));
  if (isReserved) report.invalid(name, 'the name is reserved for the cluster itself');
}

function checkQuantities(amounts: Fields, report: Report): void {
  for (const [name, amount] of Object.entries(amounts)) {
    const at = report.key(name);
    at.invalidAll(name, qualifiedName(name));
    if (compareQuantities(String(amount), '0') < 0) {
      at.invalid(amount, 'must be greater than or equal to 0');
    }
  }
}

function checkMembers(members: Fields[], report: Report): void {
  if (members.length > MEMBERS_MAX) report.tooMany(members.length, MEMBERS_MAX);
  members.slice(0, MEMBERS_MAX).forEach((member, index) => {
    const name = text(member['name']);
    const at = report.at(index, 'name');
    if (name === '') at.required();
    if (name.length > MEMBER_NAME_LENGTH_MAX) at.tooLong(MEMBER_NAME_LENGTH_MAX);
  });
}
